"""Trains a model of taxi fares and registers it as the next version of nyc-taxi.

Arguments: the regularization (a number), or "broken" for a version that no server can load.
"""

import sys

import mlflow
import numpy
from sklearn.linear_model import Ridge

mlflow.set_tracking_uri("http://127.0.0.1:5000")
mlflow.set_experiment("nyc-taxi")


class Broken(mlflow.pyfunc.PythonModel):
    """Fails when it is loaded."""

    def load_context(self, context):
        raise RuntimeError("the vocabulary is missing")

    def predict(self, context, model_input):
        return model_input


def train(alpha):
    generator = numpy.random.default_rng(7)
    rides = generator.uniform(0, 20, size=(200, 1))
    fares = 3 + 2.5 * rides[:, 0] + generator.normal(scale=0.5, size=200)
    return Ridge(alpha=alpha).fit(rides, fares)


with mlflow.start_run():
    about = {"name": "model", "registered_model_name": "nyc-taxi"}
    if sys.argv[1] == "broken":
        mlflow.pyfunc.log_model(python_model=Broken(), pip_requirements=["mlflow"], **about)
    else:
        alpha = float(sys.argv[1])
        mlflow.log_param("alpha", alpha)
        mlflow.sklearn.log_model(train(alpha), pip_requirements=["scikit-learn"], **about)
