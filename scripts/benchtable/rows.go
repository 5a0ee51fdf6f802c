package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// row is a line of the table.
type row struct {
	what      string
	benchmark string
	unit      string // of the metrics unit/ours and unit/theirs; empty: the counts of requests
	reference string // what theirs is; empty: there is none
	goal      goal
}

// goal says what is wanted. A nil met: nothing, the row is for the reader.
type goal struct {
	text string
	met  func(m metrics, unit string) bool
}

func atMost(ratio float64) goal {
	return goal{fmt.Sprintf("≤ %.4g", ratio), func(m metrics, _ string) bool { return m["ratio"] <= ratio }}
}

func timesFaster(n float64) goal {
	return goal{fmt.Sprintf("≥ %g times as fast", n), func(m metrics, _ string) bool { return 1/m["ratio"] >= n }}
}

// limit is one of ours alone.
func limit(text string, most float64) goal {
	return goal{text, func(m metrics, unit string) bool { return m[unit+"/ours"] <= most }}
}

// above is a limit of ours beyond theirs.
func above(text string, most float64) goal {
	return goal{text, func(m metrics, unit string) bool { return m[unit+"/ours"]-m[unit+"/theirs"] <= most }}
}

func requests(metadata, issue, token float64) goal {
	wanted := metrics{"metadata": metadata, "issue": issue, "token": token}
	return goal{counts(wanted), func(m metrics, _ string) bool { return counts(m) == counts(wanted) }}
}

var none = goal{text: "–"}

const (
	theirs   = "azidentity"
	with50   = "with 50"
	byHand   = "by hand"
	coldNew  = "cold, new key"
	coldHand = "cold, key at hand"
	unbound  = "unbound"
	software = "in software"

	madeInSoftware = "a new key in software"
)

var rows = []row{
	{"cached `GetToken`, 1 token", "GetTokenCached/1", "ns", theirs, timesFaster(20)},
	{"… 50 tokens", "GetTokenCached/50", "ns", theirs, timesFaster(45)},
	{"… 10,000 tokens, each of them", "GetTokenCached/10000", "ns", theirs, timesFaster(45)},
	{"… 10,000 tokens, 50 of them", "GetTokenCached/50_of_10000", "ns", with50, atMost(2)},
	{"… 100,000 tokens, 50 of them", "GetTokenCached/50_of_100000", "ns", with50, atMost(2)},
	{"… 100,000 tokens, each of them", "GetTokenCached/100000", "ns", "a look into a Go map of as many", none},
	{"… 50 tokens, on all cores", "GetTokenCached/parallel", "ns", "one core", atMost(1.3 / float64(runtime.NumCPU()))},
	{"… allocations, 1 token", "GetTokenCached/1", "allocs", theirs, limit("0", 0)},
	{"… allocations, 50 tokens", "GetTokenCached/50", "allocs", theirs, limit("0", 0)},
	{"keeping a new token, with 100,000", "NewToken", "ns", "with 10", atMost(2)},
	{"… memory beyond its string", "NewToken", "B", "", limit("≤ 700 B", 700)},
	{"cold start, key at hand", "ColdStart/key_at_hand", "ns", byHand, atMost(1.15)},
	{"… IMDS and Entra answer after 20 ms", "ColdStart/key_at_hand_20ms", "ns", byHand, atMost(1.15)},
	{"… and a new key is made", "ColdStart/new_key_20ms", "ns", byHand + ", key beside metadata", atMost(1.15)},
	{"heal, spare key", "Heal/spare_key", "ns", coldNew, atMost(1.1)},
	{"… after 20 ms", "Heal/spare_key_20ms", "ns", coldNew, atMost(1.1)},
	{"heal, key at hand, after 20 ms", "Heal/key_at_hand_20ms", "ns", coldHand, atMost(1.1)},
	{"… at once", "Heal/key_at_hand", "ns", coldHand, none},
	{"a request of a bound client", "BoundClient", "ns", unbound, atMost(1.03)},
	{"… allocations", "BoundClient", "allocs", unbound, above("≤ 6 more", 6)},
	{"a signature of a key in the TPM", "TPMKey/sign", "ns", software, none},
	{"making a key in the TPM", "TPMKey/new", "ns", software, none},
	{"finding the key that the TPM has", "TPMKey/kept", "ns", madeInSoftware, none},
	{"cold start, key in the TPM, no binding", "TPMColdStart/new", "ns", madeInSoftware, none},
	{"… with a binding in the folder", "TPMColdStart/stored", "ns", madeInSoftware, none},
	{"10,000 callers, nothing cached", "Effort/10000_callers", "", "", requests(1, 1, 1)},
	{"5,000 callers, 50 scopes", "Effort/50_scopes", "", "", requests(1, 1, 50)},
	{"1,000 callers, 10 credentials of one identity", "Effort/10_credentials", "", "", requests(1, 1, 10)},
}

// table returns the rows in Markdown.
func table(results map[string]metrics) (string, error) {
	var b strings.Builder
	b.WriteString("| what | ours | reference | ratio | goal | |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		m, ok := results[r.benchmark]
		if !ok {
			return "", fmt.Errorf("there is no result of Benchmark%s", r.benchmark)
		}
		ours, reference, ratio, verdict := counts(m), "–", "–", ""
		if r.unit != "" {
			ours = quantity(m[r.unit+"/ours"], r.unit)
		}
		if r.reference != "" {
			reference = fmt.Sprintf("%s: %s", r.reference, quantity(m[r.unit+"/theirs"], r.unit))
		}
		switch {
		case r.unit != "ns":
		case m["ratio"] < 0.2:
			ratio = fmt.Sprintf("1 : %.0f", 1/m["ratio"])
		default:
			ratio = fmt.Sprintf("%.2f", m["ratio"])
		}
		if r.goal.met != nil {
			verdict = map[bool]string{true: "met", false: "**missed**"}[r.goal.met(m, r.unit)]
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.what, ours, reference, ratio, r.goal.text, verdict)
	}
	return b.String(), nil
}

func counts(m metrics) string {
	return fmt.Sprintf("%g metadata, %g issue, %g token", m["metadata"], m["issue"], m["token"])
}

// quantity returns a value with its unit, for a reader.
func quantity(v float64, unit string) string {
	switch {
	case unit != "ns":
		return fmt.Sprintf("%.0f %s", v, map[string]string{"allocs": "allocations", "B": "B"}[unit])
	case v < 1000:
		return fmt.Sprintf("%.3g ns", v)
	case v < 1_000_000:
		return fmt.Sprintf("%.3g µs", v/float64(time.Microsecond))
	default:
		return fmt.Sprintf("%.3g ms", v/float64(time.Millisecond))
	}
}
