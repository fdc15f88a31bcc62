//! Settled bindings of a hundred tenants: nothing is written.
//!
//! Absent: memory and the cost of polls; `growth` has them.

use std::time::Duration;

use pointsman_env::interceptor::Interceptor;
use pointsman_env::progress::Task;
use pointsman_env::{Operator, OperatorOptions, TestNamespace, kinds};

use crate::environment::{
    Environment, TIMEOUT, apply, model, owning_binding, registry, release_build,
};
use crate::object_counter::{ObjectCounter, READY};
use crate::object_set::wait_until_idle;
use crate::report::Measurement;

const PREFIX: &str = "tenants";
pub const BINDINGS: usize = 10_000;
/// Bindings of one tenant.
const EACH: usize = 100;
const INTERVAL: &str = "30s";
/// Without a write for so long, all Events are sent.
const QUIET: Duration = Duration::from_secs(10);
const ENOUGH: Duration = Duration::from_secs(300);

/// So many bindings in all, observed for this time.
pub async fn measure(
    environment: &Environment,
    bindings: usize,
    duration: Duration,
) -> Vec<Measurement> {
    let tenants = bindings.div_ceil(EACH);
    environment.register(PREFIX, bindings).await;
    let server = &environment.control_plane;
    let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
        .await
        .unwrap();
    let mut operator = start_operator(environment, &api).await;
    let mut namespaces = Vec::new();
    for tenant in 0..tenants {
        let numbers = tenant * EACH..bindings.min((tenant + 1) * EACH);
        let namespace = environment.namespace(&format!("{PREFIX} {tenant}")).await;
        let names: Vec<String> = numbers
            .map(|number| format!("{PREFIX}-{number:05}"))
            .collect();
        let url = environment.mlflow.url();
        let which = format!("bindings of tenant {} of {tenants}", tenant + 1);
        let task = Task::start(&which, names.len() as u64);
        apply(&namespace, [registry(&url, INTERVAL)]).await;
        apply(&namespace, names.iter().map(|name| model(name))).await;
        apply(&namespace, names.iter().map(|name| owning_binding(name))).await;
        wait_until_ready(&namespace, names.len(), &task).await;
        task.done();
        namespaces.push(namespace);
    }
    wait_until_idle(&operator).await;
    wait_until_nothing_is_written(&api).await;
    let mark = api.mark();
    tokio::time::sleep(duration).await;
    let writes = api.writes_since(mark);
    for write in writes.iter().take(20) {
        eprintln!("  written: {} {}", write.method, write.path);
    }
    operator.stop().unwrap();
    let name = format!("writes to the API, {bindings} settled bindings of {tenants} tenants");
    let figure = format!("{} in {} s", writes.len(), duration.as_secs());
    let measurement = Measurement::new(name, figure);
    let goal = "0 in 5 minutes";
    vec![if writes.is_empty() && duration < ENOUGH {
        measurement.with_undecided_goal(goal)
    } else {
        measurement.with_goal(goal, writes.is_empty())
    }]
}

/// Events are sent at a limited rate, long after the bindings are ready.
async fn wait_until_nothing_is_written(api: &Interceptor) {
    let task = Task::start("the last Events", 0);
    loop {
        let mark = api.mark();
        tokio::time::sleep(QUIET).await;
        if api.writes_since(mark).is_empty() {
            task.done();
            return;
        }
    }
}

/// An operator that watches all namespaces.
async fn start_operator(environment: &Environment, api: &Interceptor) -> Operator {
    let mut options = OperatorOptions::watching(release_build(), PREFIX, &[]);
    options.kube_api = Some(api.url());
    Operator::start(&environment.control_plane, &environment.tools, &options)
        .await
        .unwrap()
}

async fn wait_until_ready(namespace: &TestNamespace, count: usize, task: &Task) {
    let mut ready = ObjectCounter::start(namespace, &kinds::ALIAS_BINDING, READY).await;
    ready.wait_for(count, task, TIMEOUT * 3).await;
}
