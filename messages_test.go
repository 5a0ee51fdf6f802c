package azmtls_test

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// messagesFile shows the whole message of each mistake.
const messagesFile = "docs/errors.md"

const messagesHead = "# What errors say\n\n" +
	"Each message below was provoked by a test (`go test -run Messages .`; with `-update` it writes this page anew). It names what " +
	"failed and where,\nthe server's own words, what recovery did if it did something, and what the reader can do. " +
	"HOST, TIME, ID and the like stand for what differs.\n"

// Every message says where it failed, why, in the words of who said so, and what to do: the whole text of each is
// looked at by people, as a change of this page.
func TestMessages(t *testing.T) {
	var page strings.Builder
	page.WriteString(messagesHead)
	count := 0
	for _, section := range mistakes() {
		fmt.Fprintf(&page, "\n## %s\n", section.title)
		for _, m := range section.mistakes {
			t.Run(section.title+"/"+m.name, func(t *testing.T) {
				err := m.make(t)
				require.Error(t, err)
				text := err.Error()
				for _, secret := range []string{tenant, clientID, anotherID, "eyJ", "-----BEGIN"} {
					require.NotContains(t, text, secret)
				}
				require.NotContains(t, text, "?.")
				require.NotContains(t, text, "..")
				require.NotContains(t, text, "%!")
				require.Less(t, len(text), 1200)
				fmt.Fprintf(&page, "\n**%s**\n\n> %s\n", m.name, normal(text))
			})
			count++
		}
	}
	require.GreaterOrEqual(t, count, 40)
	if *update {
		require.NoError(t, os.WriteFile(messagesFile, []byte(page.String()), 0o600))
	}
	if runtime.GOOS == "windows" { // whose words for a connection that is refused are others
		return
	}
	want, err := os.ReadFile(messagesFile)
	require.NoError(t, err)
	is, should := strings.Split(page.String(), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(is), len(should)) {
		require.Equal(t, should[i], is[i], "%s is stale: run go test -run Messages -update .", messagesFile)
	}
	require.Len(t, is, len(should))
}

var varying = []struct {
	pattern *regexp.Regexp
	stands  string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+->127\.0\.0\.1:\d+`), "HOST->HOST"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "HOST"},
	{regexp.MustCompile(`certificate [\w-]{6}…`), "certificate ID…"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "DATE"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d UTC`), "TIME"},
	{regexp.MustCompile(`, for [\d.]+m?s:`), ", for SOME TIME:"},
}

func normal(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.stands)
	}
	return strings.ReplaceAll(text, "\n", " ⏎ ")
}
