"""Calls MLflow's own client as users do: one JSON command a line on stdin, one JSON response a line on stdout.

Absent: calls besides MLflow's public Python API, except in `seed` and `move_champions`, which write to the database because a server is too slow.
"""

import json
import os
import sqlite3
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

# Only responses go to stdout: the output of MLflow goes to the log.
RESPONSES = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import mlflow  # noqa: E402
import mlflow.sklearn  # noqa: E402
import numpy  # noqa: E402
import sklearn  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402
from sklearn.metrics import mean_squared_error, r2_score  # noqa: E402

MAJOR = int(mlflow.__version__.split(".")[0])
EXPERIMENT = "prices"
BULK_THREADS = 8
BULK_SOURCE = "s3://models/{name}/{version}"


def train_and_register(client, command):
    model, alpha = command["model"], command["alpha"]
    mlflow.set_experiment(command.get("experiment") or EXPERIMENT)
    with mlflow.start_run() as run:
        estimator, metrics = train(alpha)
        mlflow.log_params({"alpha": alpha, "solver": "cholesky"})
        mlflow.log_metrics(metrics)
        mlflow.set_tags({"team": "pricing", "trained-for": model})
        # Without explicit requirements MLflow starts a process to guess them, which takes seconds.
        requirements = [f"scikit-learn=={sklearn.__version__}"]
        name = {"name": "model"} if MAJOR >= 3 else {"artifact_path": "model"}
        mlflow.sklearn.log_model(estimator, pip_requirements=requirements, **name)
        run_id = run.info.run_id
    version = register(client, model, run_id, command["how"])
    return {"version": str(version.version), "run_id": run_id, "source": version.source}


def train(alpha):
    generator = numpy.random.default_rng(7)
    features = generator.normal(size=(200, 3))
    prices = features @ numpy.array([3.0, -1.5, 0.5]) + generator.normal(scale=0.3, size=200)
    estimator = Ridge(alpha=alpha, solver="cholesky").fit(features[:150], prices[:150])
    predicted, actual = estimator.predict(features[150:]), prices[150:]
    rmse = mean_squared_error(actual, predicted) ** 0.5
    return estimator, {"r2": float(r2_score(actual, predicted)), "rmse": float(rmse)}


def register(client, model, run_id, how):
    source = f"runs:/{run_id}/model"
    if how == "register_model":
        return mlflow.register_model(source, model)
    create_registered_model_once(client, model)
    return client.create_model_version(
        model, source=source, run_id=run_id, tags={"stage": "candidate"}, description="Trained by a test"
    )


def create_registered_model_once(client, model):
    try:
        client.create_registered_model(model, tags={"team": "pricing"}, description="Prices")
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def create_registered_model(client, command):
    client.create_registered_model(command["model"], tags=command.get("tags"), description=command.get("description"))


def create_model_version(client, command):
    version = client.create_model_version(
        command["model"], source=command["source"], run_id=command.get("run_id"), tags=command.get("tags")
    )
    return str(version.version)


def set_alias(client, command):
    client.set_registered_model_alias(command["model"], command["alias"], command["version"])


def delete_alias(client, command):
    client.delete_registered_model_alias(command["model"], command["alias"])


def delete_version(client, command):
    client.delete_model_version(command["model"], command["version"])


def delete_model(client, command):
    client.delete_registered_model(command["model"])


def rename_model(client, command):
    client.rename_registered_model(command["model"], command["new_name"])


def transition_stage(client, command):
    client.transition_model_version_stage(command["model"], command["version"], command["stage"])


def set_tag(client, command):
    if command.get("version"):
        client.set_model_version_tag(command["model"], command["version"], command["key"], command["value"])
    else:
        client.set_registered_model_tag(command["model"], command["key"], command["value"])


def get_model(client, command):
    model = client.get_registered_model(command["model"])
    versions = [
        {"version": str(version.version), "source": version.source, "run_id": version.run_id, "stage": version.current_stage}
        for version in model.latest_versions
    ]
    return {
        "name": model.name,
        "aliases": {alias: str(version) for alias, version in model.aliases.items()},
        "tags": dict(model.tags),
        "description": model.description,
        "latest_versions": versions,
    }


def version_tags(client, command):
    return dict(client.get_model_version(command["model"], command["version"]).tags)


def bulk_create(client, command):
    def create(index):
        name = bulk_name(command, index)
        client.create_registered_model(name)
        for number in (1, 2):
            client.create_model_version(name, source=bulk_source(name, number))
        client.set_registered_model_alias(name, "champion", "1")

    with ThreadPoolExecutor(BULK_THREADS) as threads:
        list(threads.map(create, range(command["count"])))


def seed(_client, command):
    names = bulk_names(command)
    numbers = range(1, command.get("versions", 2) + 1)
    now = int(time.time() * 1000)
    with transaction(command) as connection:
        insert(connection, "registered_models", [model_row(name, now) for name in names])
        insert(connection, "model_versions", [version_row(command, name, number, now) for name in names for number in numbers])
        aliases = [{"name": name, "alias": "champion", "version": 1} for name in names]
        insert(connection, "registered_model_aliases", aliases)


def move_champions(_client, command):
    rows = [(command["version"], name) for name in bulk_names(command)]
    with transaction(command) as connection:
        moved = connection.executemany(
            "UPDATE registered_model_aliases SET version = ? WHERE name = ? AND alias = 'champion'", rows
        ).rowcount
        if moved != len(rows):
            raise ValueError(f"{moved} of {len(rows)} aliases are there to be moved")


@contextmanager
def transaction(command):
    connection = sqlite3.connect(command["database"], timeout=60)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def model_row(name, now):
    return {"name": name, "creation_time": now, "last_updated_time": now, "description": ""}


def version_row(command, name, number, now):
    source = bulk_source(name, number, command.get("source", BULK_SOURCE))
    return {
        "name": name,
        "version": number,
        "creation_time": now,
        "last_updated_time": now,
        "description": "",
        "current_stage": "None",
        "source": source,
        "storage_location": source,
        "status": "READY",
    }


def insert(connection, table, rows):
    if rows:
        columns = list(rows[0])
        marks = ", ".join(f":{column}" for column in columns)
        connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def bulk_names(command):
    first = command.get("from", 0)
    return [bulk_name(command, index) for index in range(first, first + command["count"])]


def bulk_name(command, index):
    return f"{command['prefix']}-{index:05}"


def bulk_source(name, number, template=BULK_SOURCE):
    return template.format(name=name, version=number)


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        train_and_register,
        create_registered_model,
        create_model_version,
        set_alias,
        delete_alias,
        delete_version,
        delete_model,
        rename_model,
        transition_stage,
        set_tag,
        get_model,
        version_tags,
        bulk_create,
        seed,
        move_champions,
    )
}

# Read by MLflow at each request, so they can differ from command to command.
PER_COMMAND = {
    "MLFLOW_TRACKING_USERNAME": "username",
    "MLFLOW_TRACKING_PASSWORD": "password",
}


def use_server(command):
    for variable, key in PER_COMMAND.items():
        if command.get(key):
            os.environ[variable] = command[key]
        else:
            os.environ.pop(variable, None)
    if hasattr(mlflow, "set_workspace"):
        mlflow.set_workspace(command.get("workspace"))
    uri = command["tracking_uri"]
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def answer(command):
    try:
        result = OPERATIONS[command["op"]](use_server(command), command)
        return {"id": command["id"], "result": result}
    except Exception as error:  # Every error is the test's to judge.
        traceback.print_exc()
        text = str(error) or type(error).__name__
        return {"id": command["id"], "error": text, "code": getattr(error, "error_code", None)}


def main():
    print(json.dumps({"ready": mlflow.__version__}), file=RESPONSES)
    # Ends with the pipe, and so with the process that started this one.
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=RESPONSES)


main()
