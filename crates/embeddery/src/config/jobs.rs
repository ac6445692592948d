//! How much work may wait, and how long jobs that ended are kept.

use std::time::Duration;

use embeddery_server::{BacklogLimit, JobLimits};
use serde::Deserialize;

use super::resolve::Found;

/// The section `jobs` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Jobs {
    pub max_documents: Option<usize>,
    pub waiting_per_user: WrittenWaiting,
    pub waiting: WrittenWaiting,
    pub retention_days: Option<f64>,
}

/// How much may wait.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenWaiting {
    pub documents: Option<usize>,
    pub bytes: Option<usize>,
    pub seconds: Option<f64>,
}

/// Checks the section.
pub(super) fn resolve(found: &mut Found<'_>, written: &Jobs, fallback: &Jobs) -> JobLimits {
    let documents = found.size("jobs.max_documents", written.max_documents.or(fallback.max_documents));
    let Ok(documents) = u32::try_from(documents) else {
        found.problem("jobs.max_documents: must be below 4294967296".into());
        return resolve(found, fallback, fallback);
    };
    let tenant =
        waiting(found, "jobs.waiting_per_user", (&written.waiting_per_user, &fallback.waiting_per_user));
    let all = waiting(found, "jobs.waiting", (&written.waiting, &fallback.waiting));
    let days = written.retention_days.or(fallback.retention_days).unwrap_or(0.0);
    let retention = if (1e-6..=36_500.0).contains(&days) {
        Duration::from_secs_f64(days * 86_400.0)
    } else {
        found.problem("jobs.retention_days: must be a number of days above zero, for example 7".into());
        Duration::ZERO
    };
    JobLimits { documents, tenant, all, retention }
}

fn waiting(
    found: &mut Found<'_>,
    key: &str,
    (written, fallback): (&WrittenWaiting, &WrittenWaiting),
) -> BacklogLimit {
    let mut size = |name, written: Option<usize>, fallback: Option<usize>| {
        found.size(&format!("{key}.{name}"), written.or(fallback)) as u64
    };
    let items = size("documents", written.documents, fallback.documents);
    let bytes = size("bytes", written.bytes, fallback.bytes);
    let age = found.seconds(&format!("{key}.seconds"), None, written.seconds.or(fallback.seconds));
    BacklogLimit { items, bytes, age }
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

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
            assert!(refused.0[0].starts_with(key), "{refused}");
        }
    }
}
