package secrets

// Thorough says that words without a sign are looked for.
const Thorough = thorough
