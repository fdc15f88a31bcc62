//! Paths of the control plane's programs: the user's own if their versions fit, else built once from the Go modules of this crate.
//! Nothing is downloaded ready-made, but for Debian packages.

use std::fs;
use std::io::BufRead;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::cache::{Cache, Entry};
use crate::error::{Context, Error, Result};
use crate::prerequisites::{self, Prerequisite, find_on_path, is_executable};
use crate::process::{Child, Program};
use crate::progress::Task;

/// The variable that chooses the version of the control plane by its minor.
pub const VERSION_VARIABLE: &str = "POINTSMAN_KUBERNETES_VERSION";
/// The version of the control plane unless [`VERSION_VARIABLE`] chooses another one, and of the kubelet.
const NEWEST: Kubernetes = Kubernetes {
    version: "v1.36.3",
    minor: 36,
    module: "kubernetes",
};
/// The oldest version that the chart accepts.
const OLDEST: Kubernetes = Kubernetes {
    version: "v1.30.14",
    minor: 30,
    module: "kubernetes-1.30",
};

/// A version of Kubernetes that can be built here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kubernetes {
    version: &'static str,
    minor: u32,
    /// The folder of the Go module of its control plane.
    module: &'static str,
}

impl Kubernetes {
    /// The version that [`VERSION_VARIABLE`] chooses; `None` if it is not set.
    fn chosen() -> Result<Option<Self>> {
        match std::env::var(VERSION_VARIABLE) {
            Ok(minor) if !minor.is_empty() => Self::of_minor(&minor).map(Some),
            _ => Ok(None),
        }
    }

    fn of_minor(text: &str) -> Result<Self> {
        let minor = text.strip_prefix("1.").and_then(|minor| minor.parse().ok());
        [NEWEST, OLDEST]
            .into_iter()
            .find(|each| Some(each.minor) == minor)
            .ok_or_else(|| {
                Error::new(
                    format_args!("reading {VERSION_VARIABLE}"),
                    format_args!("the control plane of {text} cannot be built here"),
                )
                .remedy(format!(
                    "set it to 1.{} or 1.{}, or set only KUBEBUILDER_ASSETS, to the folder of another version's programs",
                    OLDEST.minor, NEWEST.minor
                ))
            })
    }

    /// API server, controllers, scheduler and kubectl of this version.
    const fn control_plane(self) -> Family {
        Family {
            kubernetes: Some(self),
            ..Family::of(self.module, CONTROL_PLANE)
        }
    }
}

/// Paths of the programs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// Its storage.
    pub etcd: PathBuf,
    /// Deployments, `ReplicaSets`, garbage collection.
    pub kube_controller_manager: PathBuf,
    /// Gives pods their node.
    pub kube_scheduler: PathBuf,
    /// The command line client.
    pub kubectl: PathBuf,
    /// Plays nodes and pods.
    pub kwok: PathBuf,
    /// Renders the chart.
    pub helm: PathBuf,
}

impl Tools {
    /// Finds each program, and builds the missing ones.
    pub fn locate(cache: &Cache) -> Result<Self> {
        let plan = Plan::new()?;
        if !plan.unbuilt(cache)?.is_empty() {
            prerequisites::check(&[Prerequisite::Go])?;
        }
        let kubernetes = plan.kubernetes_folder(cache)?;
        let in_kubernetes = |name: &str| kubernetes.as_ref().map(|folder| folder.join(name));
        let own = |found: Option<PathBuf>, name: &str| {
            found.or_else(|| in_kubernetes(name)).ok_or_else(|| {
                Error::new(
                    format_args!("looking for {name}"),
                    "it was neither found nor built",
                )
            })
        };
        Ok(Self {
            kube_apiserver: own(plan.found(|found| &found.apiserver), "kube-apiserver")?,
            kube_controller_manager: own(
                plan.found(|found| &found.controller_manager),
                "kube-controller-manager",
            )?,
            kube_scheduler: own(plan.found(|found| &found.scheduler), "kube-scheduler")?,
            kubectl: own(plan.kubectl.clone(), "kubectl")?,
            etcd: plan
                .etcd
                .clone()
                .map_or_else(|| ETCD.build(cache).map(|folder| folder.join("etcd")), Ok)?,
            kwok: plan
                .kwok
                .clone()
                .map_or_else(|| KWOK.build(cache).map(|folder| folder.join("kwok")), Ok)?,
            helm: plan
                .helm
                .clone()
                .map_or_else(|| HELM.build(cache).map(|folder| folder.join("helm")), Ok)?,
        })
    }

    /// Whether [`Tools::locate`] would have to build something.
    pub fn must_build(cache: &Cache) -> Result<bool> {
        Ok(!Plan::new()?.unbuilt(cache)?.is_empty())
    }
}

/// Paths of the programs of a real node, and of the programs of its images. `runc` and the CNI plugins are the machine's own.
#[derive(Debug, Clone)]
pub struct NodeTools {
    /// Runs pods.
    pub kubelet: PathBuf,
    /// Gives Services their addresses.
    pub kube_proxy: PathBuf,
    /// The folder of `containerd`, its shim and `ctr`.
    pub containerd: PathBuf,
    /// Answers predictions, statically linked.
    pub model_server: PathBuf,
    /// Holds a pod's namespaces, statically linked.
    pub pause: PathBuf,
}

impl NodeTools {
    /// Builds each program that is not there.
    pub fn locate(cache: &Cache) -> Result<Self> {
        let unbuilt =
            [&KUBELET, &CONTAINERD, &MODEL_SERVER].map(|family| is_unbuilt(family, cache));
        if unbuilt
            .into_iter()
            .collect::<Result<Vec<_>>>()?
            .contains(&true)
        {
            prerequisites::check(&[Prerequisite::Go])?;
        }
        let (node, images) = (KUBELET.build(cache)?, MODEL_SERVER.build(cache)?);
        Ok(Self {
            containerd: CONTAINERD.build(cache)?,
            kubelet: node.join("kubelet"),
            kube_proxy: node.join("kube-proxy"),
            model_server: images.join("server"),
            pause: images.join("pause"),
        })
    }
}

fn is_unbuilt(family: &Family, cache: &Cache) -> Result<bool> {
    Ok(cache.existing(&family.entry()?).is_none())
}

/// The programs found on this machine; `None` means that it must be built.
struct Plan {
    /// The version to build.
    kubernetes: Kubernetes,
    control_plane: Option<ControlPlanePrograms>,
    kubectl: Option<PathBuf>,
    etcd: Option<PathBuf>,
    kwok: Option<PathBuf>,
    helm: Option<PathBuf>,
}

/// The three that must be of one minor version, so they are taken together or not at all.
struct ControlPlanePrograms {
    apiserver: PathBuf,
    controller_manager: PathBuf,
    scheduler: PathBuf,
}

impl Plan {
    fn new() -> Result<Self> {
        let chosen = Kubernetes::chosen()?;
        let kubernetes = chosen.unwrap_or(NEWEST);
        let servers = chosen.map_or(OLDEST.minor..=u32::MAX, |chosen| {
            chosen.minor..=chosen.minor
        });
        Ok(Self {
            kubernetes,
            control_plane: ControlPlanePrograms::find(&servers),
            kubectl: candidates("kubectl")
                .into_iter()
                .find(|path| kubectl_fits(path, kubernetes.minor)),
            etcd: candidates("etcd").into_iter().next(),
            kwok: candidates("kwok").into_iter().next(),
            helm: candidates("helm").into_iter().find(|path| helm_fits(path)),
        })
    }

    fn found(&self, which: impl Fn(&ControlPlanePrograms) -> &PathBuf) -> Option<PathBuf> {
        self.control_plane
            .as_ref()
            .map(|found| which(found).clone())
    }

    fn kubernetes_folder(&self, cache: &Cache) -> Result<Option<PathBuf>> {
        let complete = self.control_plane.is_some() && self.kubectl.is_some();
        if complete {
            Ok(None)
        } else {
            self.kubernetes.control_plane().build(cache).map(Some)
        }
    }

    fn unbuilt(&self, cache: &Cache) -> Result<Vec<&'static str>> {
        let kubernetes = self.kubernetes.control_plane();
        let wanted = [
            (
                &kubernetes,
                self.control_plane.is_none() || self.kubectl.is_none(),
            ),
            (&ETCD, self.etcd.is_none()),
            (&KWOK, self.kwok.is_none()),
            (&HELM, self.helm.is_none()),
        ];
        let mut unbuilt = Vec::new();
        for (family, needed) in wanted {
            if needed && is_unbuilt(family, cache)? {
                unbuilt.push(family.name);
            }
        }
        Ok(unbuilt)
    }
}

impl ControlPlanePrograms {
    /// Those of one minor version in this range.
    fn find(servers: &RangeInclusive<u32>) -> Option<Self> {
        let found = Self {
            apiserver: candidates("kube-apiserver").into_iter().next()?,
            controller_manager: candidates("kube-controller-manager").into_iter().next()?,
            scheduler: candidates("kube-scheduler").into_iter().next()?,
        };
        let minors = [
            &found.apiserver,
            &found.controller_manager,
            &found.scheduler,
        ]
        .map(|path| minor_of(&version_text(path, &["--version"])));
        let one_minor = minors.iter().all(|minor| {
            minor.is_some_and(|minor| servers.contains(&minor)) && *minor == minors[0]
        });
        one_minor.then_some(found)
    }
}

/// Programs of that name, in `KUBEBUILDER_ASSETS` first, then on `PATH`.
fn candidates(name: &str) -> Vec<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS")
        .map(|folder| Path::new(&folder).join(name))
        .filter(|path| is_executable(path));
    assets.into_iter().chain(find_on_path(name)).collect()
}

/// kubectl may differ from the server by one minor.
fn kubectl_fits(path: &Path, server: u32) -> bool {
    minor_of(&version_text(path, &["version", "--client"]))
        .is_some_and(|minor| minor.abs_diff(server) <= 1)
}

fn helm_fits(path: &Path) -> bool {
    let text = version_text(path, &["version", "--short"]);
    match version_of(&text) {
        Some((3, minor)) => minor >= 14,
        Some((major, _)) => major == 4,
        None => false,
    }
}

fn version_text(path: &Path, arguments: &[&str]) -> String {
    let output = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

fn minor_of(text: &str) -> Option<u32> {
    version_of(text).map(|(_, minor)| minor)
}

/// The first `v<major>.<minor>.` of a text.
fn version_of(text: &str) -> Option<(u32, u32)> {
    text.split(|character: char| character.is_whitespace() || character == '"')
        .find_map(|word| {
            let mut numbers = word.strip_prefix('v')?.split('.');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        })
}

/// Static programs, from exactly the listed modules, whatever workspace surrounds them.
const SETTINGS: [(&str, &str); 3] = [
    ("CGO_ENABLED", "0"),
    ("GOFLAGS", "-mod=readonly"),
    ("GOWORK", "off"),
];

/// A Go module of tools that are built together.
struct Family {
    name: &'static str,
    /// `(package, name of the program)`.
    packages: &'static [(&'static str, &'static str)],
    /// The files that decide the result of the build, besides the linker's flags.
    files: &'static [&'static str],
    /// Build tags that leave parts out.
    tags: &'static str,
    /// The version that the linker sets.
    kubernetes: Option<Kubernetes>,
}

const MODULES: &[&str] = &["go.mod", "go.sum"];

const CONTROL_PLANE: &[(&str, &str)] = &[
    ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    (
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-controller-manager",
    ),
    ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
    ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
];
const ETCD: Family = Family::of("etcd", &[("go.etcd.io/etcd/server/v3", "etcd")]);
const KWOK: Family = Family::of("kwok", &[("sigs.k8s.io/kwok/cmd/kwok", "kwok")]);
const HELM: Family = Family::of("helm", &[("helm.sh/helm/v4/cmd/helm", "helm")]);
/// A module of its own, so that it is built only for a real node.
const KUBELET: Family = Family {
    kubernetes: Some(NEWEST),
    ..Family::of(
        "kubelet",
        &[
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
            ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
        ],
    )
};
const CONTAINERD: Family = Family {
    tags: "no_btrfs,no_devmapper,no_zfs",
    ..Family::of(
        "containerd",
        &[
            (
                "github.com/containerd/containerd/v2/cmd/containerd",
                "containerd",
            ),
            (
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "containerd-shim-runc-v2",
            ),
            ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
        ],
    )
};
const MODEL_SERVER: Family = Family {
    files: &["go.mod", "server/main.go", "pause/main.go"],
    ..Family::of(
        "modelserver",
        &[("./server", "server"), ("./pause", "pause")],
    )
};

/// Neither is one of [`Tools`]: only the tests of artifact stores need them.
const VERSITYGW: Family = Family::of(
    "versitygw",
    &[("github.com/versity/versitygw/cmd/versitygw", "versitygw")],
);

const FAKE_GCS: Family = Family::of(
    "fakegcs",
    &[("github.com/fsouza/fake-gcs-server", "fake-gcs-server")],
);

/// The S3 server, built on first use.
pub fn versitygw(cache: &Cache) -> Result<PathBuf> {
    VERSITYGW
        .build_alone(cache)
        .map(|folder| folder.join("versitygw"))
}

/// The server with Google Cloud Storage's API, built on first use.
pub fn fake_gcs_server(cache: &Cache) -> Result<PathBuf> {
    FAKE_GCS
        .build_alone(cache)
        .map(|folder| folder.join("fake-gcs-server"))
}

const ACTIONLINT: Family = Family::of(
    "actionlint",
    &[("github.com/rhysd/actionlint/cmd/actionlint", "actionlint")],
);

/// The checker of workflow files, built on first use.
pub fn actionlint(cache: &Cache) -> Result<PathBuf> {
    ACTIONLINT
        .build_alone(cache)
        .map(|folder| folder.join("actionlint"))
}

/// The programs of other projects: Argo CD, beside which the operator works, and peers that the benchmark compares it with.
const ARGOCD: Family = Family {
    files: &["go.mod", "go.sum", "scripts/main.go"],
    ..Family::of(
        "argocd",
        &[
            ("github.com/argoproj/argo-cd/v3/cmd", "argocd"),
            ("./scripts", "scripts"),
        ],
    )
};
const KUSTOMIZE_CONTROLLER: Family = Family::of(
    "kustomizecontroller",
    &[(
        "github.com/fluxcd/kustomize-controller",
        "kustomize-controller",
    )],
);
/// Flux's copy of the library, which Flux and Helm judge objects by.
const KSTATUS: Family = Family {
    files: &["go.mod", "go.sum", "main.go"],
    ..Family::of("kstatus", &[(".", "kstatus")])
};
const SOURCE_CONTROLLER: Family = Family::of(
    "sourcecontroller",
    &[("github.com/fluxcd/source-controller", "source-controller")],
);
const ROLLOUTS: Family = Family::of(
    "rollouts",
    &[(
        "github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
        "rollouts-controller",
    )],
);
/// Only the definitions of its kinds are used.
const KSERVE: Family = Family::of("kserve", &[]);
/// The requests of the peer from Flux.
const OCI_REGISTRY: Family = Family::of(
    "ociregistry",
    &[(
        "github.com/google/go-containerregistry/cmd/registry",
        "registry",
    )],
);

/// A controller of another project.
#[derive(Debug, Clone)]
pub struct PeerTools {
    /// The controller.
    pub program: PathBuf,
    /// The folder of its module in the Go module cache: no file of it is ours.
    pub module: PathBuf,
    /// The folder of the definitions of its kinds, in the folder of the module.
    pub definitions: PathBuf,
    /// The version of its module.
    pub version: String,
}

/// Argo CD, one program that takes its role from its name, built on first use.
pub fn argocd(cache: &Cache) -> Result<PeerTools> {
    ARGOCD.peer(cache, "github.com/argoproj/argo-cd/v3", "manifests/crds")
}

/// A program that runs scripts in Argo CD's interpreter against the expected results beside them.
pub fn argocd_scripts(cache: &Cache) -> Result<PathBuf> {
    ARGOCD
        .build_alone(cache)
        .map(|folder| folder.join("scripts"))
}

/// A program that prints kstatus's result for each object that it reads, built on first use.
pub fn kstatus(cache: &Cache) -> Result<PathBuf> {
    KSTATUS
        .build_alone(cache)
        .map(|folder| folder.join("kstatus"))
}

/// Flux's kustomize-controller, built on first use.
pub fn kustomize_controller(cache: &Cache) -> Result<PeerTools> {
    KUSTOMIZE_CONTROLLER.peer(
        cache,
        "github.com/fluxcd/kustomize-controller",
        "config/crd/bases",
    )
}

/// Flux's source-controller, built on first use.
pub fn source_controller(cache: &Cache) -> Result<PeerTools> {
    SOURCE_CONTROLLER.peer(
        cache,
        "github.com/fluxcd/source-controller",
        "config/crd/bases",
    )
}

/// Argo's controller of Rollouts, built on first use.
pub fn rollouts_controller(cache: &Cache) -> Result<PeerTools> {
    ROLLOUTS.peer(cache, "github.com/argoproj/argo-rollouts", "manifests/crds")
}

/// The folder of the definitions of KServe's kinds, in the Go module cache.
pub fn kserve_definitions() -> Result<PathBuf> {
    prerequisites::check(&[Prerequisite::Go])?;
    let module = KSERVE.downloaded("github.com/kserve/kserve")?.dir;
    Ok(module.join("config/crd"))
}

/// The OCI registry that keeps its data in memory, built on first use.
pub fn oci_registry(cache: &Cache) -> Result<PathBuf> {
    OCI_REGISTRY
        .build_alone(cache)
        .map(|folder| folder.join("registry"))
}

/// No program of it is built: its definitions of kinds are enough for routes.
const GATEWAY_API: Family = Family::of("gatewayapi", &[]);

/// The folder of the Gateway API's definitions of kinds, in the Go module cache.
pub fn gateway_api_definitions() -> Result<PathBuf> {
    prerequisites::check(&[Prerequisite::Go])?;
    let module = GATEWAY_API.downloaded("sigs.k8s.io/gateway-api")?;
    Ok(module.dir.join("config/crd/standard"))
}

/// Debian's package of Prometheus.
const PROMETHEUS: &str = "prometheus";

/// The folder of Debian's `prometheus` and `promtool`, unpacked on first use without installing them, which would start a server.
pub fn prometheus(cache: &Cache) -> Result<PathBuf> {
    let entry = Entry::new(PROMETHEUS, &["Debian"]);
    let folder = cache.entry(&entry, |folder| {
        let task = Task::start("downloading Debian's package of Prometheus", 0);
        let script = "apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; \
            dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb";
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(folder)
            .output();
        let output = output.context("starting apt-get")?;
        if !output.status.success() {
            let cause = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::new("downloading Debian's package of Prometheus", cause)
                .remedy("run this on Debian or Ubuntu, with a package archive that can be reached"));
        }
        task.done();
        Ok(())
    })?;
    Ok(folder.join("usr/bin"))
}

/// No program of it is built: its definitions of kinds are enough for monitors and rules.
const PROMETHEUS_OPERATOR: Family = Family::of("prometheusoperator", &[]);

/// The folder of the Prometheus Operator's definitions of kinds, in the Go module cache.
pub fn prometheus_operator_definitions() -> Result<PathBuf> {
    prerequisites::check(&[Prerequisite::Go])?;
    let module =
        PROMETHEUS_OPERATOR.downloaded("github.com/prometheus-operator/prometheus-operator")?;
    Ok(module.dir.join("example/prometheus-operator-crd"))
}

/// The folders of the definitions of Flux's kinds, in the Go module cache. No program is built for them.
pub fn flux_definitions() -> Result<[PathBuf; 2]> {
    prerequisites::check(&[Prerequisite::Go])?;
    let source = SOURCE_CONTROLLER.downloaded("github.com/fluxcd/source-controller")?;
    let kustomize = KUSTOMIZE_CONTROLLER.downloaded("github.com/fluxcd/kustomize-controller")?;
    Ok([source, kustomize].map(|module| module.dir.join("config/crd/bases")))
}

/// The output of `go mod download -json` for a module.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: PathBuf,
    version: String,
}

impl Family {
    /// The only program of this family, and the folder of its module.
    fn peer(&self, cache: &Cache, module: &str, definitions: &str) -> Result<PeerTools> {
        prerequisites::check(&[Prerequisite::Go])?;
        let program = self.build(cache)?.join(self.packages[0].1);
        let Downloaded { dir, version } = self.downloaded(module)?;
        Ok(PeerTools {
            program,
            definitions: dir.join(definitions),
            module: dir,
            version,
        })
    }

    /// The folder of a module of this family in exactly the built version, downloaded if it is missing.
    fn downloaded(&self, module: &str) -> Result<Downloaded> {
        let what = format!("looking for the Go module {module}");
        let output = self
            .go()
            .args(["mod", "download", "-json", module])
            .output()
            .context(&what)?;
        if !output.status.success() {
            return Err(Error::new(what, String::from_utf8_lossy(&output.stderr))
                .remedy("check that the Go module proxy (go env GOPROXY) can be reached"));
        }
        serde_json::from_slice(&output.stdout).context(what)
    }

    const fn of(name: &'static str, packages: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            name,
            packages,
            files: MODULES,
            tags: "",
            kubernetes: None,
        }
    }

    fn module(&self) -> PathBuf {
        crate::crate_folder().join("tools").join(self.name)
    }

    fn entry(&self) -> Result<Entry> {
        let read = |name: &str| {
            let path = self.module().join(name);
            fs::read_to_string(&path).context(format_args!("reading {}", path.display()))
        };
        let mut content = self
            .files
            .iter()
            .map(|name| read(name))
            .collect::<Result<Vec<_>>>()?;
        content.push(self.linker_flags());
        content.extend((!self.tags.is_empty()).then(|| self.tags.to_owned()));
        Ok(Entry::new(
            self.name,
            &content.iter().map(String::as_str).collect::<Vec<_>>(),
        ))
    }

    /// [`Family::build`], after a check that Go is installed.
    fn build_alone(&self, cache: &Cache) -> Result<PathBuf> {
        if is_unbuilt(self, cache)? {
            prerequisites::check(&[Prerequisite::Go])?;
        }
        self.build(cache)
    }

    fn build(&self, cache: &Cache) -> Result<PathBuf> {
        cache.entry(&self.entry()?, |folder| {
            let fetching = Task::start(&format!("fetching the Go modules of {}", self.name), 0);
            let packages = self.count_packages()?;
            fetching.done();
            self.packages.iter().try_for_each(|(package, program)| {
                self.compile(package, &folder.join(program), packages)
            })
        })
    }

    /// With a supervisor: a compiler that outlives this process would write into the next build.
    fn compile(&self, package: &str, program: &Path, packages: u64) -> Result<()> {
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let task = Task::start(&format!("building {name}"), packages);
        let arguments = [
            "build",
            "-v",
            "-trimpath",
            "-tags",
            self.tags,
            "-ldflags",
            &self.linker_flags(),
            "-o",
        ];
        let mut child = Program::new(&format!("build-{name}"), "go")
            .args(["-C".as_ref(), self.module().as_os_str()])
            .args(arguments)
            .args([program.as_os_str(), package.as_ref()])
            .envs(SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .start(program.parent().unwrap_or(Path::new("/")))?;
        let status = follow(&mut child, &task);
        if !status.success() {
            return Err(Error::new(
                format_args!("building {name} with go build"),
                format_args!("{status}\n{}", child.tail(30)),
            )
            .remedy("check that the Go module proxy can be reached and that 4 GB of disk and of memory are free"));
        }
        task.done();
        Ok(())
    }

    /// How many packages there are to compile, for the bar; this also downloads the modules.
    fn count_packages(&self) -> Result<u64> {
        let output = self
            .go()
            .args(["list", "-deps", "-tags", self.tags])
            .args(self.packages.iter().map(|(package, _)| package))
            .output()
            .context("starting go list")?;
        if !output.status.success() {
            return Err(Error::new(
                format_args!("listing the Go packages of {}", self.name),
                String::from_utf8_lossy(&output.stderr),
            )
            .remedy("check that the Go module proxy (go env GOPROXY) can be reached"));
        }
        Ok(output.stdout.lines().count() as u64)
    }

    fn go(&self) -> Command {
        let mut go = Command::new("go");
        go.current_dir(self.module())
            .envs(SETTINGS)
            .stdin(Stdio::null());
        go
    }

    /// Without the version, `kubectl version` and the server's version gates read v0.0.0.
    fn linker_flags(&self) -> String {
        let Some(Kubernetes { version, minor, .. }) = self.kubernetes else {
            return "-s -w".to_owned();
        };
        let package = "k8s.io/component-base/version";
        format!(
            "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
        )
    }
}

/// Shows each package that go names as one step.
fn follow(child: &mut Child, task: &Task) -> ExitStatus {
    loop {
        let said = fs::read_to_string(child.log()).unwrap_or_default();
        task.reach(said.lines().count() as u64);
        task.detail(said.lines().last().unwrap_or_default());
        if let Some(status) = child.ended() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(version_of("Kubernetes v1.36.3"), Some((1, 36)));
        assert_eq!(
            version_of("Client Version: v1.32.4\nKustomize Version: v5.5.0"),
            Some((1, 32))
        );
        assert_eq!(version_of("v4.3.1+g1234"), Some((4, 3)));
        assert_eq!(version_of("nothing of the sort"), None);
    }

    #[test]
    fn a_version_is_chosen_by_its_minor_and_names_its_module() {
        assert_eq!(Kubernetes::of_minor("1.36").unwrap(), NEWEST);
        assert_eq!(Kubernetes::of_minor("1.30").unwrap(), OLDEST);
        let refused = Kubernetes::of_minor("1.29").unwrap_err().to_string();
        assert!(refused.contains("set it to 1.30 or 1.36"), "{refused}");
        for version in [NEWEST, OLDEST] {
            let module = version.control_plane().module().join("go.mod");
            let required = format!("k8s.io/kubernetes {} ", version.version);
            assert!(fs::read_to_string(module).unwrap().contains(&required));
        }
    }
}
