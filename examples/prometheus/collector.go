package main

import (
	"time"

	"github.com/azmtls/azmtls"
	"github.com/prometheus/client_golang/prometheus"
)

// credential is what both credentials of azmtls are to a collector.
type credential interface{ Status() azmtls.Status }

// collector tells Prometheus of a credential: its Status when it is scraped, and the steps that its Observer is told
// of. No label holds an identifier, a host or a resource, so that there is a handful of series for each credential.
type collector struct {
	cred credential

	steps    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	counters []counter
	gauges   []gauge
}

type counter struct {
	desc  *prometheus.Desc
	value func(azmtls.Counters) uint64
}

type gauge struct {
	desc  *prometheus.Desc
	value func(azmtls.Status) (float64, bool)
}

// newCollector returns a collector. Its observe method is the Observer of the credential; watch tells it which one that
// is. The name tells several credentials of a program apart.
func newCollector(name string) *collector {
	labels := prometheus.Labels{"credential": name}
	c := &collector{

		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "azmtls_steps_total", Help: "Steps of the credential, as Observer tells of them.", ConstLabels: labels,
		}, []string{"step"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "azmtls_stage_seconds", Help: "How long the stages on the way to a token take.", ConstLabels: labels,
			Buckets: []float64{0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60, 240},
		}, []string{"stage", "outcome"}),
	}
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("azmtls_"+name, help, nil, labels) }
	c.counters = []counter{
		{
			desc("cached_answers_total", "Tokens given out from memory."),
			func(n azmtls.Counters) uint64 { return n.CachedAnswers },
		},
		{desc("tokens_total", "Tokens that Entra issued."), func(n azmtls.Counters) uint64 { return n.Tokens }},
		{desc("mints_total", "Certificates that IMDS issued."), func(n azmtls.Counters) uint64 { return n.Mints }},
		{desc("evictions_total", "Bindings that were evicted."), func(n azmtls.Counters) uint64 { return n.Evictions }},
		{
			desc("recoveries_total", "Requests sent once more over another binding."),
			func(n azmtls.Counters) uint64 { return n.Recoveries },
		},
	}
	c.gauges = []gauge{
		{desc("certificate_not_after_seconds", "When the certificate in use ends, in Unix time."), ofBinding(
			func(s azmtls.Status) time.Time { return s.Binding.NotAfter })},
		{desc("certificate_renewal_due_seconds", "When its renewal is due, in Unix time."), ofBinding(
			func(s azmtls.Status) time.Time { return s.Binding.RenewalDue })},
		{
			desc("key_strength", "Strength of the key in use: 1 software, 2 TPM, 3 KeyGuard."),
			func(s azmtls.Status) (float64, bool) {
				if s.Binding == nil {
					return 0, false
				}
				return float64(s.Binding.Strength), true
			},
		},
		{
			desc("binding_kept", "1 while a refused binding is kept, since the budget is spent."),
			func(s azmtls.Status) (float64, bool) {
				return number(s.Binding != nil && s.Binding.Kept), true
			},
		},
		{
			desc("fallback", "1 while azidentity serves, with bearer tokens of IMDS v1."),
			func(s azmtls.Status) (float64, bool) {
				return number(s.Fallback != nil), true
			},
		},
	}
	return c
}

func ofBinding(when func(azmtls.Status) time.Time) func(azmtls.Status) (float64, bool) {
	return func(s azmtls.Status) (float64, bool) {
		if s.Binding == nil {
			return 0, false
		}
		return float64(when(s).Unix()), true
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// watch says which credential it is. It is called once, before the collector is registered.
func (c *collector) watch(cred credential) { c.cred = cred }

// observe is the credential's Observer.
func (c *collector) observe(e azmtls.Event) {
	c.steps.WithLabelValues(e.Step.String()).Inc()
	if e.Step == azmtls.StepStage {
		outcome := "done"
		if e.Err != nil {
			outcome = "failed"
		}
		c.seconds.WithLabelValues(e.Stage.String(), outcome).Observe(e.Duration.Seconds())
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	c.steps.Describe(descs)
	c.seconds.Describe(descs)
	for _, n := range c.counters {
		descs <- n.desc
	}
	for _, g := range c.gauges {
		descs <- g.desc
	}
}

// Collect implements prometheus.Collector. Status makes no call and waits for nothing, so a scrape costs nothing.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	c.steps.Collect(metrics)
	c.seconds.Collect(metrics)
	status := c.cred.Status()
	for _, n := range c.counters {
		metrics <- prometheus.MustNewConstMetric(n.desc, prometheus.CounterValue, float64(n.value(status.Counters)))
	}
	for _, g := range c.gauges {
		if value, known := g.value(status); known {
			metrics <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value)
		}
	}
}
