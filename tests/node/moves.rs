//! Forward, back, and onto a version that crashes, each under more than twenty thousand requests of which none may fail.
//!
//! Absent: what the status and the Events say in full; the scenarios on kwok's pods tell that.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pointsman_env::load::{LoadOptions, Tally};
use serde_json::{Value, json};

use crate::stage::{MAX_RESTARTS, Stage, Told, World, deployment};

type Story = (
    &'static str,
    fn(Arc<World>) -> Pin<Box<dyn Future<Output = Told> + Send>>,
);

/// Names stories by their functions.
macro_rules! stories {
    ($($name:ident),+ $(,)?) => {
        pub fn all() -> Vec<Story> {
            vec![$((stringify!($name), |world| Box::pin($name(world)))),+]
        }
    };
}

stories!(
    moving_the_alias_forward_fails_no_request,
    moving_the_alias_back_fails_no_request,
    a_crashing_version_fails_no_request_and_moving_the_alias_back_heals,
    a_crashing_version_is_rolled_back_by_itself_and_fails_no_request,
    where_all_pods_are_replaced_at_once_requests_fail_and_are_counted,
);

const ENOUGH: usize = 20_000;

pub fn names() -> Vec<&'static str> {
    all().into_iter().map(|(name, _)| name).collect()
}

async fn moving_the_alias_forward_fails_no_request(world: Arc<World>) -> Told {
    move_alias(&world, "forward, 1 to 2", "1", "2").await
}

async fn moving_the_alias_back_fails_no_request(world: Arc<World>) -> Told {
    move_alias(&world, "back, 2 to 1", "2", "1").await
}

async fn move_alias(world: &Arc<World>, story: &'static str, from: &str, to: &str) -> Told {
    let stage = Stage::set(world, story, from, plain(), json!({})).await;
    let load = stage.load(LoadOptions::default()).await;
    stage.alias(to).await;
    let moved = jiff::Timestamp::now();
    stage.only_runs(to).await;
    let remark = format!(
        "only version {to} left {} after the alias moved",
        since(moved)
    );
    stage.says(to, "Live").await;
    let tally = stage.settle(load, remark).await;
    assert_none_failed(&tally);
    assert!(
        tally.answered_by.contains_key(from) && tally.answered_by.contains_key(to),
        "{tally:?}"
    );
    stage.end().await
}

async fn a_crashing_version_fails_no_request_and_moving_the_alias_back_heals(
    world: Arc<World>,
) -> Told {
    let stage = Stage::set(
        &world,
        "to a crashing 3, and back by hand to 2",
        "2",
        plain(),
        json!({"onFailure": false}),
    )
    .await;
    let load = stage.load(LoadOptions::default()).await;
    stage.alias("3").await;
    stage.first_crash("3").await;
    let moved = jiff::Timestamp::now();
    stage.alias("2").await;
    stage.only_runs("2").await;
    let remark = format!(
        "version 2 fully back {} after the alias moved back",
        since(moved)
    );
    stage.says("2", "Live").await;
    assert_only_answered(&stage.settle(load, remark).await, "2");
    stage.end().await
}

async fn a_crashing_version_is_rolled_back_by_itself_and_fails_no_request(
    world: Arc<World>,
) -> Told {
    let stage = Stage::set(
        &world,
        "to a crashing 3, and back by itself to 2",
        "2",
        plain(),
        json!({}),
    )
    .await;
    let load = stage.load(LoadOptions::default()).await;
    stage.alias("3").await;
    let crashed = stage.first_crash("3").await;
    stage.last_crash("3", MAX_RESTARTS).await;
    let failed = since(crashed);
    stage.is_told("2").await;
    let told = since(crashed);
    stage.only_runs("2").await;
    let back = since(crashed);
    let remark = format!(
        "after the first crash of version 3: crash after restart {MAX_RESTARTS} {failed}, version 2 wanted again {told}, fully back {back}"
    );
    let binding = stage.says("2", "RolledBack").await;
    assert!(holds_back(&binding, "3"), "{binding}");
    assert_only_answered(&stage.settle(load, remark).await, "2");
    stage.end().await
}

/// What shows that a request that fails is seen: the same move by a Deployment that ends its pods before it starts others.
async fn where_all_pods_are_replaced_at_once_requests_fail_and_are_counted(
    world: Arc<World>,
) -> Told {
    let mut at_once = plain();
    at_once["spec"]["strategy"] = json!({"type": "Recreate"});
    let stage = Stage::set(
        &world,
        "forward, all pods at once (a control)",
        "1",
        at_once,
        json!({}),
    )
    .await;
    let load = stage
        .load(LoadOptions {
            at_least: 0,
            ..LoadOptions::default()
        })
        .await;
    stage.alias("2").await;
    stage.only_runs("2").await;
    let tally = stage.settle(load, String::new()).await;
    assert!(tally.failed > 0, "{tally:?}");
    stage.end().await
}

/// Version 3 of every model crashes.
fn plain() -> Value {
    deployment("3=crash")
}

fn since(then: jiff::Timestamp) -> String {
    format!(
        "{:.1} s",
        jiff::Timestamp::now().duration_since(then).as_secs_f64()
    )
}

fn holds_back(binding: &Value, version: &str) -> bool {
    binding["status"]["heldBack"]["versions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|each| each["version"] == version))
}

fn assert_none_failed(tally: &Tally) {
    assert!(tally.sent >= ENOUGH, "too few requests: {tally:?}");
    assert_eq!(tally.failed, 0, "{tally:?}");
}

fn assert_only_answered(tally: &Tally, version: &str) {
    assert_none_failed(tally);
    assert_eq!(
        tally.answered_by.keys().collect::<Vec<_>>(),
        [version],
        "{tally:?}"
    );
}
