package terminal

import (
	"strings"
	"unicode/utf8"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/doctor"
)

var signs = map[doctor.State]struct {
	sign  string
	color Color
}{
	doctor.OK:      {"ok", Green},
	doctor.Note:    {"note", Yellow},
	doctor.Problem: {"PROBLEM", Red},
	doctor.Skipped: {"skipped", Gray},
}

// Report writes what the doctor found.
func (w *Writer) Report(r doctor.Report) {
	widest := 0
	for _, f := range r.Findings {
		widest = max(widest, utf8.RuneCountInString(f.What))
	}
	w.Printf("%s on %s\n\n", w.Paint(Bold, r.Machine), r.Platform)
	indent := strings.Repeat(" ", widest+2+len("PROBLEM")+2)
	for _, f := range r.Findings {
		s := signs[f.State]
		w.Printf("%s  %s  %s\n", pad(f.What, widest), w.Paint(s.color, pad(s.sign, len("PROBLEM"))), f.Summary)
		for _, detail := range f.Details {
			w.Printf("%s%s\n", indent, w.Paint(Gray, detail))
		}
		if f.Advice != "" {
			w.Printf("%s%s\n%s%s\n", indent, w.Paint(Yellow, "→ "+f.Advice), indent, w.Paint(Gray, "  "+f.See))
		}
	}
	if r.Healthy {
		w.Printf("\n%s\n", w.Paint(Green, "Tokens over mutual TLS can be had."))
		return
	}
	w.Printf("\n%s\n", w.Paint(Red, "Something is in the way."))
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
