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

{{/* The operator's permissions in a namespace that it watches. Secrets and ConfigMaps are read by name, never listed. */}}
{{- define "pointsman.rules" -}}
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
  verbs: [get, list, watch, create, patch]
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
# Jobs that train a lost version again (spec.retrain).
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create]
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
