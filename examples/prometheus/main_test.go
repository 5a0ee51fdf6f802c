package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/imdstest"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// scrape asks for the metrics of a credential that healed once, over HTTP as Prometheus does.
func scrape(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	server := imdstest.New(t, nil)
	server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Times: 1})
	cred, metrics, err := instrumented(server.CredentialOptions())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cred.Close()) })
	for range 3 {
		_, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
		require.NoError(t, err)
	}
	web := httptest.NewServer(metrics)
	t.Cleanup(web.Close)
	resp, err := http.Get(web.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	require.NoError(t, err)
	return families
}

// What Prometheus gets is what happened: one heal, and answers from memory.
func TestScrape(t *testing.T) {
	families := scrape(t)
	value := func(name string) float64 {
		require.Contains(t, families, name)
		m := families[name].GetMetric()[0]
		return m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	for name, want := range map[string]float64{
		"azmtls_mints_total": 2, "azmtls_evictions_total": 1, "azmtls_recoveries_total": 1, "azmtls_tokens_total": 1,
		"azmtls_cached_answers_total": 2, "azmtls_key_strength": 1, "azmtls_fallback": 0, "azmtls_binding_kept": 0,
	} {
		require.Equal(t, want, value(name), name)
	}
	require.Greater(t, value("azmtls_certificate_not_after_seconds"), value("azmtls_certificate_renewal_due_seconds"))
	require.Len(t, families["azmtls_stage_seconds"].GetMetric(), 5, "four stages, and a token that failed")
}

// A label that holds an identifier, a host or a time would make a series of each.
func TestLabelsAreBounded(t *testing.T) {
	for name, family := range scrape(t) {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				require.Contains(t, []string{"credential", "step", "stage", "outcome"}, label.GetName(), name)
				require.Regexp(t, `^[a-z_]+$`, label.GetValue(), name)
			}
		}
	}
}

// Dashboard and alerts speak of metrics that there are.
func TestDashboardAndAlerts(t *testing.T) {
	families := scrape(t)
	known := func(expression string) {
		names := regexp.MustCompile(`azmtls_\w+`).FindAllString(expression, -1)
		require.NotEmpty(t, names, expression)
		for _, name := range names {
			require.Contains(t, families, strings.TrimSuffix(name, "_bucket"), expression)
		}
	}
	text, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &alerts))
	require.Len(t, alerts.Groups[0].Rules, 3)
	for _, rule := range alerts.Groups[0].Rules {
		known(rule.Expr)
		require.NotEmpty(t, rule.Labels["severity"])
		require.Contains(t, rule.Annotations["runbook_url"], "TROUBLESHOOTING.md#")
	}

	text, err = os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	require.Len(t, dashboard.Panels, 8)
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			known(target.Expr)
		}
	}
}
