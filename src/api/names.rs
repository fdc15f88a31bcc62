//! The annotations, labels and names that Pointsman reads or writes.
//!
//! Absent: names that are also written elsewhere. Each is written once.

/// The field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "pointsman";
/// Label on a driven Deployment and its pod template: the binding's name.
pub const BINDING_LABEL: &str = "pointsman.dev/binding";
/// The labels of pods and ReplicaSets that are read: the binding, and the revisions that the controllers of workloads write.
pub const READ_LABELS: [&str; 4] = [
    BINDING_LABEL,
    REVISION_HASH_LABEL,
    TEMPLATE_GENERATION_LABEL,
    ROLLOUT_HASH_LABEL,
];
/// Label on the ReplicaSets and pods of a Rollout: the hash of their template.
pub const ROLLOUT_HASH_LABEL: &str = "rollouts-pod-template-hash";
/// The beginnings of the names of annotations that the controllers of workloads write.
pub const CONTROLLER_PREFIXES: [&str; 2] = ["deployment.kubernetes.io/", "rollout.argoproj.io/"];
/// Label on the pods of a StatefulSet: the revision of their template.
pub const REVISION_HASH_LABEL: &str = "controller-revision-hash";
/// Label on the pods of a DaemonSet: the generation of the template that they were created from.
pub const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";
/// Annotation on the pod template: the version that it holds.
pub const VERSION_ANNOTATION: &str = "pointsman.dev/model-version";
/// Annotation on the pod template: a digest of the version's identity (model, number, creation time, source).
pub const VERSION_ID_ANNOTATION: &str = "pointsman.dev/model-version-id";
/// Label on a workload whose version a person brought back: that person's field manager. Pointsman owns the version's fields
/// beside it, and did not choose them.
pub const RESTORED_BY_LABEL: &str = "pointsman.dev/restored-by";
/// Annotation that Kubernetes shows in `kubectl rollout history`.
pub const CHANGE_CAUSE_ANNOTATION: &str = "kubernetes.io/change-cause";
/// Annotation on any of the three kinds: a new value requests a reconcile, with a poll of the registry.
pub const REQUESTED_AT_ANNOTATION: &str = "pointsman.dev/requested-at";
/// Annotation on an `AliasBinding`: a new value ends the hold that a person's change of the workload began.
pub const RESUME_ANNOTATION: &str = "pointsman.dev/resume-requested-at";
/// Annotation on an `AliasBinding`: a new value requests a retry of the versions that are held back.
pub const RETRY_ANNOTATION: &str = "pointsman.dev/retry-requested-at";
/// Annotation that Kubernetes sets on a Deployment and its ReplicaSets: equal values belong together.
pub const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Annotation that `kubectl rollout restart` sets on a pod template.
pub const RESTARTED_AT_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";
/// Finalizer on a `RegisteredModel` whose registered model is deleted with it.
pub const MODEL_FINALIZER: &str = "pointsman.dev/registered-model";
/// Finalizer on a `ModelRegistry` whose webhook is deleted with it.
pub const WEBHOOK_FINALIZER: &str = "pointsman.dev/webhook";
/// Annotation on the Lease: the address at which the leader takes deliveries that other replicas received.
pub const ADDRESS_ANNOTATION: &str = "pointsman.dev/address";

/// Annotation on the pod template: the names of its injected variables with their values, if the spec chose them.
pub const VARIABLES_ANNOTATION: &str = "pointsman.dev/variables";
/// Annotation on a pod template whose kind has no keys for containers: the containers with the variables of
/// [`VARIABLES_ANNOTATION`].
pub const CONTAINERS_ANNOTATION: &str = "pointsman.dev/containers";
/// All annotations of Pointsman's on a pod template.
pub const TEMPLATE_ANNOTATIONS: [&str; 4] = [
    VERSION_ANNOTATION,
    VERSION_ID_ANNOTATION,
    VARIABLES_ANNOTATION,
    CONTAINERS_ANNOTATION,
];
/// Annotation on an `AliasBinding`: a new value requests that the registry's present address and the present location of the
/// version's files are written into the workload.
pub const APPLY_ANNOTATION: &str = "pointsman.dev/apply-requested-at";
/// Annotation on a Namespace or an `AliasBinding`: while it is there, no version goes forward. Its value is the reason.
pub const FREEZE_ANNOTATION: &str = "pointsman.dev/freeze";
/// Annotation on an `AliasBinding`: the user who approved, as the API server knows it; written by the chart's policy alone.
pub const APPROVED_BY_ANNOTATION: &str = "pointsman.dev/approved-by";
/// Annotation on an `AliasBinding`: why the version was approved.
pub const APPROVAL_REASON_ANNOTATION: &str = "pointsman.dev/approval-reason";
/// Annotation on an `AliasBinding`: the ticket of the approval.
pub const APPROVAL_TICKET_ANNOTATION: &str = "pointsman.dev/approval-ticket";
/// Annotation on an `AliasBinding`: why a person has a version go forward that a freeze, a window or a missing approval holds.
pub const OVERRIDE_REASON_ANNOTATION: &str = "pointsman.dev/override-reason";
/// Annotation on a pod template: the container that kubectl, and Pointsman, choose by default.
pub const DEFAULT_CONTAINER_ANNOTATION: &str = "kubectl.kubernetes.io/default-container";
/// Environment variable: the registry's address, set only if the user has not set it.
pub const MLFLOW_TRACKING_URI: &str = "MLFLOW_TRACKING_URI";
