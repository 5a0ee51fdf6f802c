package tokencache

// Kept returns for how many resources the Cache keeps how many entries to give out, and how many to know again.
func (c *Cache) Kept() (resources, entries, issued int) {
	byResource := *c.entries.Load()
	for _, kinds := range byResource {
		for _, e := range kinds {
			if e != nil {
				entries++
			}
		}
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(byResource), entries, len(c.issued)
}
