package clock

import "time"

var start = time.Now()

// sinceStart reads the monotonic clock of package time.
func sinceStart() time.Duration { return time.Since(start) }
