{{- define "remediator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "remediator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "remediator.labels" -}}
{{ include "remediator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "remediator.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "remediator.fullname" .) -}}
{{- end }}

{{- define "remediator.tokensSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-tokens" (include "remediator.fullname" .)) -}}
{{- end }}

{{- define "remediator.claim" -}}
{{- .Values.store.persistence.existingClaim | default (printf "%s-data" (include "remediator.fullname" .)) -}}
{{- end }}

{{/* What the chart decides about the service's configuration, over what the values say. */}}
{{- define "remediator.config" -}}
{{- $tokens := list -}}
{{- range .Values.auth.tokens -}}
{{- $file := printf "/etc/remediator/tokens/%s" .name -}}
{{- $tokens = append $tokens (dict "name" .name "role" .role "file" $file) -}}
{{- end -}}
{{- $ours := dict "listen" "0.0.0.0:8080" "data" "/data" "catalog" (list "/etc/remediator/catalog") -}}
{{- $_ := set $ours "auth" (dict "tokens" $tokens) -}}
{{- $scope := dict "own_namespace" .Release.Namespace -}}
{{- if not (hasKey (default dict (default dict .Values.config.scope).kubernetes) "namespaces") -}}
{{- $_ := set $scope "namespaces" .Values.rbac.namespaces -}}
{{- end -}}
{{- $_ := set $ours "scope" (dict "kubernetes" $scope) -}}
{{- if .Values.store.postgresql.existingSecret -}}
{{- $_ := set $ours "store_file" "/etc/remediator/store/url" -}}
{{- end -}}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) $ours) -}}
{{- end }}
