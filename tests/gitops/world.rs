//! The servers that all tests share, each started on first use: a Git server, Argo CD and Flux beside the scenarios' own.
//!
//! Absent: applications; each test has its own in a namespace of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pointsman_env::ControlPlane;
use pointsman_env::gitops::argocd::ArgoCd;
use pointsman_env::gitops::flux::Flux;
use pointsman_env::gitops::git::{GitServer, Repository};
use tokio::sync::OnceCell;

use crate::fixture::{Environment, ScenarioResult};

pub type Test = (
    &'static str,
    fn(Arc<World>) -> Pin<Box<dyn Future<Output = ScenarioResult> + Send>>,
);

/// Lists async functions as tests, named like the functions.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub fn tests() -> Vec<$crate::world::Test> {
            vec![$((stringify!($name), |world| Box::pin($name(world)))),+]
        }
    };
}
pub(crate) use tests;

/// How many times an alias moves in a test; `POINTSMAN_GITOPS_MOVES` asks for another number.
pub fn moves() -> u32 {
    let wanted = std::env::var("POINTSMAN_GITOPS_MOVES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[derive(Default)]
pub struct World {
    // Dropped in this order: the tools end before the control plane that they watch.
    argocd: OnceCell<ArgoCd>,
    flux: OnceCell<Flux>,
    git: OnceCell<GitServer>,
    pub environment: Arc<Environment>,
}

impl World {
    pub async fn control_plane(&self) -> &Arc<ControlPlane> {
        &self.environment.cluster().await.control_plane
    }

    /// A new repository of the shared Git server.
    pub async fn repository(&self, name: &str) -> Repository {
        let start = || async { GitServer::start().await.unwrap() };
        let server = self.git.get_or_init(start).await;
        server.repository(name).await.unwrap()
    }

    pub async fn argocd(&self) -> &ArgoCd {
        let start = || async { ArgoCd::start(self.control_plane().await).await.unwrap() };
        self.argocd.get_or_init(start).await
    }

    pub async fn flux(&self) -> &Flux {
        let start = || async { Flux::start(self.control_plane().await).await.unwrap() };
        self.flux.get_or_init(start).await
    }
}
