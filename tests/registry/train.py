"""Trains and registers models with MLflow's own client, once in each form of source, and prints what to expect as JSON.

Absent: checks. The test that runs this asks the server and compares.
"""

import json
import logging
import sys

import mlflow
import numpy
from mlflow.tracking import MlflowClient


class Mean(mlflow.pyfunc.PythonModel):
    """Answers with the mean of what it was trained on."""

    def __init__(self, mean):
        self.mean = mean

    def predict(self, context, model_input, params=None):
        return [self.mean for _ in range(len(model_input))]


def train(client, name):
    """One run that logs a model; answers with the run, the logged model's identifier (MLflow 3) and the artifacts' URI."""
    with mlflow.start_run() as run:
        mlflow.log_params({"alpha": "0.1", "long": "x" * 300})
        mlflow.log_metrics({"r2": 0.51, "odd": float("nan"), "far": float("inf")})
        mlflow.set_tag("mlflow.source.git.commit", "0123456789abcdef")
        mean = Mean(float(numpy.mean([1, 2, 3])))
        three = int(mlflow.__version__.split(".")[0]) >= 3
        info = mlflow.pyfunc.log_model(**{"name" if three else "artifact_path": "model"}, python_model=mean)
    model_id = getattr(info, "model_id", None)
    files = client.get_logged_model(model_id).artifact_location if model_id else f"{run.info.artifact_uri}/model"
    return run.info.run_id, model_id, files


def main(uri, name):
    logging.disable(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    mlflow.set_experiment(name)
    run_id, model_id, files = train(client, name)
    mlflow.register_model(f"runs:/{run_id}/model", name)
    client.create_model_version(name, source=f"runs:/{run_id}/model", run_id=run_id)
    client.create_model_version(name, source="s3://bucket/a/model")
    client.create_model_version(name, source=f"models:/{name}/1")
    client.create_model_version(name, source=f"models:/{name}/2")
    client.set_registered_model_alias(name, "champion", "2")
    print(json.dumps({"run": run_id, "model": model_id, "files": files}))


if __name__ == "__main__":
    main(*sys.argv[1:])
