//! Rules as sentences, laws as properties, and a recorded sample of every stored form.

mod claims;
mod examples;
mod generate;
mod history;
mod laws;
mod rules;
mod samples;
mod scenario;
mod snapshots;
mod statuses;
mod stored;
