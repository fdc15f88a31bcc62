"""Points an alias of a registered model to a version. Arguments: model, alias, version."""

import sys

from mlflow import MlflowClient

MlflowClient("http://127.0.0.1:5000").set_registered_model_alias(*sys.argv[1:4])
