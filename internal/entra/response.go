package entra

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/problem"
)

// Token is a token as Entra issued it.
type Token struct {
	Value   string
	Life    time.Duration
	Refresh time.Duration // how old it should be when it is refreshed: as Entra advised, else half of its life
}

// ParseToken reads the answer to a request. A token of another type than the one asked for is refused: it would be a
// silent downgrade.
func ParseToken(resp *http.Response, asked string) (Token, error) {
	body, err := runtime.Payload(resp)
	if err != nil {
		return Token{}, fmt.Errorf("reading the answer of the token endpoint: %w", err)
	}
	var answer struct {
		AccessToken string  `json:"access_token"`
		TokenType   string  `json:"token_type"`
		ExpiresIn   seconds `json:"expires_in"`
		RefreshIn   seconds `json:"refresh_in"`
	}
	if err := json.Unmarshal(problem.WithoutBOM(body), &answer); err != nil {
		// err could quote the token
		return Token{}, errors.New(
			"the answer of the token endpoint is malformed: it is not the JSON that was expected",
		)
	}
	switch {
	case answer.TokenType == "":
		return Token{}, fmt.Errorf("the answer of the token endpoint names no token_type, %s was asked for", asked)
	case !strings.EqualFold(answer.TokenType, asked):
		return Token{}, fmt.Errorf("the token endpoint answered with a token of type %.20q where %s was asked for; "+
			"a downgrade is refused", answer.TokenType, asked)
	case answer.AccessToken == "":
		return Token{}, errors.New("the answer of the token endpoint has no access_token")
	case answer.ExpiresIn <= 0:
		return Token{}, errors.New("the answer of the token endpoint has no expires_in")
	}
	token := Token{Value: answer.AccessToken, Life: answer.ExpiresIn.duration(), Refresh: answer.RefreshIn.duration()}
	if token.Refresh <= 0 || token.Refresh >= token.Life {
		token.Refresh = token.Life / 2 // as MSAL does without advice
	}
	return token, nil
}

// seconds is a count of them that Entra writes as a JSON number, and some deployments as a string or with decimals. One
// that makes no sense counts as absent: what Entra advises must not cost the token.
type seconds float64

func (s *seconds) UnmarshalJSON(data []byte) error {
	// 0 if it is no number, infinity if it is too large.
	value, _ := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	if math.IsNaN(value) {
		value = 0
	}
	*s = seconds(value)
	return nil
}

// maxLifetime bounds what a nonsensical expires_in can do to time arithmetic.
const maxLifetime = 365 * 24 * time.Hour

func (s seconds) duration() time.Duration {
	if s > seconds(maxLifetime/time.Second) {
		return maxLifetime
	}
	return time.Duration(float64(s) * float64(time.Second))
}
