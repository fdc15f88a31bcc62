//! An interceptor forwards requests unchanged, and breaks only the chosen ones.
//! Absent: a fake upstream; the upstream is the real API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use pointsman_env::interceptor::{Fault, Interceptor, Method, When, matching};
use pointsman_env::{ControlPlane, TestNamespace, kinds};
use serde_json::json;

use crate::Shared;

pub(crate) fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    vec![
        shared.trial("a_watch_passes_event_by_event", watch_passes),
        shared.trial("faults_are_injected_and_removed", faults),
        shared.trial(
            "a_refusing_interceptor_accepts_again_on_the_same_port",
            refuses,
        ),
        shared.trial("a_request_is_paused_before_it_is_forwarded", paused_before),
        shared.trial("a_request_is_paused_after_it_was_answered", paused_after),
    ]
}

struct Setting {
    scenario: TestNamespace,
    interceptor: Interceptor,
    token: String,
    http: reqwest::Client,
}

impl Setting {
    async fn new(shared: &Shared, name: &str) -> Self {
        let control_plane = shared.control_plane().await;
        let scenario = TestNamespace::start(&control_plane, name).await.unwrap();
        let interceptor =
            Interceptor::start(control_plane.apiserver_url(), Some(control_plane.ca_pem()))
                .await
                .unwrap();
        let token = editor_token(&control_plane, &scenario).await;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self {
            scenario,
            interceptor,
            token,
            http,
        }
    }

    fn request(&self, method: Method, rest: &str) -> reqwest::RequestBuilder {
        let url = format!(
            "{}/api/v1/namespaces/{}/configmaps{rest}",
            self.interceptor.url(),
            self.scenario.namespace()
        );
        self.http.request(method, url).bearer_auth(&self.token)
    }

    fn create(&self, name: &str) -> reqwest::RequestBuilder {
        self.request(Method::POST, "")
            .json(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}))
    }

    async fn exists(&self, name: &str) -> bool {
        self.scenario
            .find(&kinds::CONFIG_MAP, name)
            .await
            .unwrap()
            .is_some()
    }
}

async fn editor_token(control_plane: &ControlPlane, scenario: &TestNamespace) -> String {
    let namespace = scenario.namespace();
    let grant = format!("--serviceaccount={namespace}:editor");
    scenario
        .kubectl(&["create", "serviceaccount", "editor"])
        .await
        .unwrap();
    scenario
        .kubectl(&[
            "create",
            "role",
            "editor",
            "--verb=*",
            "--resource=configmaps",
        ])
        .await
        .unwrap();
    scenario
        .kubectl(&["create", "rolebinding", "editor", "--role=editor", &grant])
        .await
        .unwrap();
    control_plane
        .service_account_token(namespace, "editor")
        .await
        .unwrap()
}

async fn watch_passes(shared: Arc<Shared>) {
    let setting = Setting::new(&shared, "watch").await;
    let mut answer = setting
        .request(Method::GET, "?watch=true&timeoutSeconds=15")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    for name in ["first", "second"] {
        let began = Instant::now();
        setting
            .create(name)
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap();
        let event = answer.chunk().await.unwrap().expect("the watch goes on");
        assert!(
            String::from_utf8_lossy(&event).contains(&format!(r#""name":"{name}""#)),
            "{event:?}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the event was held back for {:?}",
            began.elapsed()
        );
    }
    let writes = setting.interceptor.writes_since(0);
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert_eq!(
        setting.interceptor.since(0)[0].query.as_deref(),
        Some("watch=true&timeoutSeconds=15")
    );
}

async fn faults(shared: Arc<Shared>) {
    let setting = Setting::new(&shared, "faults").await;
    let get = || setting.request(Method::GET, "");
    setting.interceptor.inject(
        matching::everything(),
        Fault::json(503, r#"{"message":"later"}"#),
        Some(1),
    );
    assert_eq!(get().send().await.unwrap().status(), 503);
    assert_eq!(get().send().await.unwrap().status(), 200);

    setting
        .interceptor
        .inject(matching::write(""), Fault::CloseConnection, None);
    assert!(setting.create("never").send().await.is_err());
    assert_eq!(get().send().await.unwrap().status(), 200);
    assert!(!setting.exists("never").await);
    setting.interceptor.clear();

    setting
        .interceptor
        .inject(matching::everything(), Fault::TruncatedJson, Some(1));
    assert!(
        get()
            .send()
            .await
            .unwrap()
            .json::<serde_json::Value>()
            .await
            .is_err()
    );
    setting
        .interceptor
        .inject(matching::everything(), Fault::EndlessJson, Some(1));
    let mut endless = get().send().await.unwrap();
    let mut read = 0;
    while read < 20_000_000 {
        read += endless.chunk().await.unwrap().expect("it never ends").len();
    }
    setting.interceptor.inject(
        matching::everything(),
        Fault::Slow(Duration::from_millis(300)),
        Some(1),
    );
    let began = Instant::now();
    assert_eq!(get().send().await.unwrap().status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

async fn refuses(shared: Arc<Shared>) {
    let setting = Setting::new(&shared, "refuse").await;
    let mut watch = setting
        .request(Method::GET, "?watch=true&timeoutSeconds=15")
        .send()
        .await
        .unwrap();
    setting.interceptor.refuse().await;
    assert!(watch.chunk().await.is_err(), "the watch is broken");
    assert!(
        setting
            .request(Method::GET, "")
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
    setting.interceptor.accept_again().await.unwrap();
    assert_eq!(
        setting
            .request(Method::GET, "")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

async fn paused_before(shared: Arc<Shared>) {
    let setting = Setting::new(&shared, "before").await;
    let mut pause = setting
        .interceptor
        .pause(matching::request(Method::POST, "/configmaps"), When::Before);
    let sending = tokio::spawn(setting.create("lost").send());
    pause.reached().await;
    assert!(!setting.exists("lost").await);
    // Like a killed operator: the connection closes, and the request is never forwarded.
    sending.abort();
    let _aborted = sending.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    pause.release();
    setting
        .create("kept")
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    assert!(!setting.exists("lost").await);
}

async fn paused_after(shared: Arc<Shared>) {
    let setting = Setting::new(&shared, "after").await;
    let mut pause = setting
        .interceptor
        .pause(matching::request(Method::POST, "/configmaps"), When::After);
    let sending = tokio::spawn(setting.create("done").send());
    pause.reached().await;
    assert!(setting.exists("done").await);
    assert!(!sending.is_finished());
    pause.release();
    assert_eq!(sending.await.unwrap().unwrap().status(), 201);
}
