{{- define "pointsman.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pointsman.labels" -}}
{{ include "pointsman.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The image: registry, repository, and digest or tag. */}}
{{- define "pointsman.image" -}}
{{- $registry := default (dig "imageRegistry" "" (default dict .Values.global)) .Values.image.registry -}}
{{- with $registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- .Values.image.repository -}}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end -}}
{{- end -}}

{{/* The families of a Service's addresses. */}}
{{- define "pointsman.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
  ipFamilies: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* Values that contradict each other. */}}
{{- define "pointsman.checks" -}}
{{- if not .Values.rbac.clusterScoped -}}
{{- if not .Values.watchNamespaces -}}
{{- fail "rbac.clusterScoped is false, so the operator cannot watch all namespaces: set watchNamespaces, as in --set 'watchNamespaces={ml}'" -}}
{{- end -}}
{{- if not .Values.clusterName -}}
{{- fail "rbac.clusterScoped is false, so the operator cannot read the identity of the cluster: set clusterName, as in --set clusterName=eu-prod" -}}
{{- end -}}
{{- if .Values.metrics.authentication -}}
{{- fail "rbac.clusterScoped is false, and tokens are reviewed by a right on the cluster: set metrics.authentication=false, and networkPolicy.metricsFrom" -}}
{{- end -}}
{{- if .Values.crds.enabled -}}
{{- fail "rbac.clusterScoped is false, and definitions belong to the cluster: set crds.enabled=false, and have an administrator apply crds/" -}}
{{- end -}}
{{- if .Values.approvals.recordUser -}}
{{- fail "rbac.clusterScoped is false, and the policy that records users belongs to the cluster: set approvals.recordUser=false" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pointsman.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The name of cluster-wide objects. It holds the namespace, because two namespaces may have releases of one name. */}}
{{- define "pointsman.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "pointsman.fullname" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of cluster-wide roles for people: short if the namespace has the name of the release. */}}
{{- define "pointsman.roleName" -}}
{{- $name := include "pointsman.fullname" . -}}
{{- if eq .Release.Namespace $name -}}
{{- $name -}}
{{- else -}}
{{- include "pointsman.clusterName" . -}}
{{- end -}}
{{- end -}}

{{/* The API version of MutatingAdmissionPolicy: the one that the API server offers; without a cluster, as in helm template, that of --kube-version. */}}
{{- define "pointsman.mutatingPolicyVersion" -}}
{{- $group := "admissionregistration.k8s.io" -}}
{{- $kube := .Capabilities.KubeVersion.Version -}}
{{- $offered := .Capabilities.APIVersions -}}
{{- $isCluster := $offered.Has "v1/Pod" -}}
{{- if ternary ($offered.Has (printf "%s/v1/MutatingAdmissionPolicy" $group)) (semverCompare ">=1.36-0" $kube) $isCluster -}}
{{- printf "%s/v1" $group -}}
{{- else if ternary ($offered.Has (printf "%s/v1beta1/MutatingAdmissionPolicy" $group)) (semverCompare ">=1.34-0" $kube) $isCluster -}}
{{- printf "%s/v1beta1" $group -}}
{{- else -}}
{{- fail (printf "approvals.recordUser is true, and the API server (%s) has no MutatingAdmissionPolicy: Kubernetes 1.36 has it, 1.34 with its feature gate; set approvals.recordUser=false to record field managers" $kube) -}}
{{- end -}}
{{- end -}}

{{/* The annotations of an object of the uninstall hook; the argument is its weight. */}}
{{- define "pointsman.uninstallHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}

{{/* The permissions of the uninstall hook. */}}
{{- define "pointsman.uninstallRules" -}}
- apiGroups: [pointsman.dev]
  resources: [modelregistries, registeredmodels]
  verbs: [get, list, patch]
{{- end -}}

{{/* The operator's permissions in a namespace that it watches. Secrets and ConfigMaps are read by name, never listed. */}}
{{- define "pointsman.rules" -}}
# To read the labels of a namespace that uses a registry of another one (spec.allowedNamespaces.from: Selector). In the Role of a
# namespace this is the right on that namespace alone.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
- apiGroups: [pointsman.dev]
  resources: [modelregistries, registeredmodels, aliasbindings]
  verbs: [get, list, watch]
- apiGroups: [pointsman.dev]
  # To set and remove their finalizers.
  resources: [modelregistries, registeredmodels]
  verbs: [patch]
- apiGroups: [pointsman.dev]
  resources: [modelregistries/status, registeredmodels/status, aliasbindings/status]
  verbs: [update]
- apiGroups: [pointsman.dev]
  # Required by clusters that check blockOwnerDeletion on an owned Deployment.
  resources: [aliasbindings/finalizers, registeredmodels/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, patch{{ if .Values.features.templates }}, create{{ end }}]
# To observe a rollout by the new version's own pods.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# To say why a pod does not start, if the pod itself does not say it.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- if .Values.targets.statefulSets }}
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, patch]
# A broken pod stops the rollout of a StatefulSet in order, also back to a good version.
- apiGroups: [""]
  resources: [pods]
  verbs: [delete]
{{- end }}
{{- if .Values.targets.daemonSets }}
- apiGroups: [apps]
  resources: [daemonsets]
  verbs: [get, list, watch, patch]
{{- end }}
{{- if .Values.targets.rollouts }}
- apiGroups: [argoproj.io]
  resources: [rollouts]
  verbs: [get, list, watch, patch]
{{- end }}
{{- if .Values.targets.cronJobs }}
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, patch]
{{- end }}
{{- range .Values.targets.others }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .plural | quote }}]
  verbs: [get, list, watch, patch]
{{- end }}
{{- if or .Values.features.retrain .Values.targets.cronJobs }}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch]
{{- end }}
{{- if .Values.features.retrain }}
# Jobs that train a lost version again (spec.retrain).
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create]
{{- end }}
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
