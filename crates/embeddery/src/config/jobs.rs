//! How much work may wait, and how long jobs that ended are kept.

use embeddery_server::{BacklogLimit, JobLimits};
use serde::Deserialize;

use super::{
    reader::SettingReader,
    units::{Days, Positive, Seconds},
};

/// The section `jobs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsSection {
    max_documents: Positive,
    waiting_per_user: BacklogLimitSection,
    waiting: BacklogLimitSection,
    retention_days: Days,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BacklogLimitSection {
    documents: Positive,
    bytes: Positive,
    seconds: Seconds,
}

/// Checks the section.
pub(super) fn resolve(reader: &mut SettingReader, section: &JobsSection) -> JobLimits {
    if u32::try_from(section.max_documents.get()).is_err() {
        reader.problem_at("jobs.max_documents", "must be below 4294967296");
    }
    let waiting = |limit: &BacklogLimitSection| BacklogLimit {
        items: limit.documents.get() as u64,
        bytes: limit.bytes.get() as u64,
        age: limit.seconds.0,
    };
    JobLimits {
        documents: section.max_documents.get_u32(),
        tenant: waiting(&section.waiting_per_user),
        all: waiting(&section.waiting),
        retention: section.retention_days.0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests_support::resolved;

    #[test]
    fn what_is_written_wins_and_the_rest_has_defaults() {
        let config = resolved("jobs: {waiting_per_user: {documents: 5}, retention_days: 0.5}", &[]).unwrap();
        assert_eq!(config.jobs.tenant.items, 5);
        assert_eq!(config.jobs.retention, Duration::from_secs(43_200));
        assert!(config.jobs.all.items > 5 && config.jobs.documents >= 10_000);
    }

    #[test]
    fn nonsense_is_named() {
        for (text, key) in [
            ("jobs: {max_documents: 0}", "jobs.max_documents"),
            ("jobs: {max_documents: 5000000000}", "jobs.max_documents"),
            ("jobs: {waiting: {bytes: 0}}", "jobs.waiting.bytes"),
            ("jobs: {waiting_per_user: {seconds: -1}}", "jobs.waiting_per_user.seconds"),
            ("jobs: {retention_days: 0}", "jobs.retention_days"),
        ] {
            let Err(refused) = resolved(text, &[]) else { panic!("{text}") };
            assert!(refused.0[0].contains(&format!(": {key}: ")), "{refused}");
        }
    }
}
