//! The breakers of all servers, and their reports. A server is listed under the services that use it: the name of its
//! provider, or the configured ids of `local_api`. The services come from the configuration, so their number is bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use embeddery_core::{ProviderKind, UpstreamServer};

use super::{Breaker, BreakerConfig, BreakerState};

/// The breakers of all servers.
pub struct BreakerRegistry {
    config: BreakerConfig,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    breakers: BTreeMap<Key, Arc<Breaker>>,
    services: Vec<Service>,
    /// The counts of servers that a service no longer has: the counters of a service never decrease.
    retired: BTreeMap<Arc<str>, BreakerTotals>,
    /// What the breaker of a service's server had counted when the service got the server. The service does not count
    /// it: it belongs to other services, or it is in `retired`.
    before: BTreeMap<(Arc<str>, Key), BreakerTotals>,
}

/// The provider and the address. Accounts at one address share its breaker.
type Key = (ProviderKind, Option<Arc<str>>);

/// A server under the name that lists and metrics show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The name of the provider, or the configured id of a `local_api` model.
    pub name: Arc<str>,
    /// One of its servers.
    pub server: UpstreamServer,
}

/// Counters of a breaker since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerTotals {
    /// Calls that failed by the upstream's fault.
    pub failures: u64,
    /// Calls that succeeded.
    pub successes: u64,
    /// Times that the breaker opened.
    pub trips: u64,
}

impl std::ops::AddAssign for BreakerTotals {
    fn add_assign(&mut self, other: Self) {
        self.failures += other.failures;
        self.successes += other.successes;
        self.trips += other.trips;
    }
}

impl std::ops::SubAssign for BreakerTotals {
    fn sub_assign(&mut self, other: Self) {
        self.failures = self.failures.saturating_sub(other.failures);
        self.successes = self.successes.saturating_sub(other.successes);
        self.trips = self.trips.saturating_sub(other.trips);
    }
}

/// A snapshot of a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerReport {
    /// The unique name in lists: that of the service, with the address for each further server of the service.
    pub name: String,
    /// The service.
    pub service: Arc<str>,
    /// The provider of the server.
    pub provider: ProviderKind,
    /// The server's `scheme://host:port`; `None` for models of this process, for a provider without a server, and in
    /// the report of a whole service.
    pub address: Option<Arc<str>>,
    /// Closed, open or half open.
    pub state: BreakerState,
    /// Consecutive failures. While the breaker is open or half open, the number that opened it.
    pub failures: u32,
    /// Successful probes.
    pub successes: u32,
    /// Probes in progress.
    pub probes: u32,
    /// Time until the breaker becomes half open; `None` unless it is open.
    pub remaining_open: Option<Duration>,
    /// Time of the last failure.
    pub last_failure: Option<SystemTime>,
    /// The breaker's configuration.
    pub config: BreakerConfig,
    /// Counters since the process started.
    pub totals: BreakerTotals,
}

/// Why no breaker was reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownBreaker {
    /// No provider, service or breaker has this name.
    Name,
    /// None of the named breakers has this address; these addresses are known.
    Address(Vec<Arc<str>>),
}

impl BreakerRegistry {
    /// A registry without servers. A breaker is created closed.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, inner: Mutex::default() }
    }

    /// Lists these servers from now on. A server that stays keeps its breaker; the breakers of all others are dropped.
    pub fn set_services(&self, services: Vec<Service>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let old = inner.listed();
        for gone in old.iter().filter(|old| !services.iter().any(|new| is_same(old, new))) {
            if let Some(breaker) = inner.breakers.get(&key(&gone.server)) {
                let totals = inner.counted_by(&gone.name, &gone.server, breaker.snapshot().totals);
                *inner.retired.entry(Arc::clone(&gone.name)).or_default() += totals;
                inner.before.remove(&(Arc::clone(&gone.name), key(&gone.server)));
            }
        }
        for new in services.iter().filter(|new| !old.iter().any(|old| is_same(old, new))) {
            if let Some(breaker) = inner.breakers.get(&key(&new.server)) {
                let at = (Arc::clone(&new.name), key(&new.server));
                inner.before.insert(at, breaker.snapshot().totals);
            }
        }
        inner.retired.retain(|name, _| services.iter().any(|service| service.name == *name));
        inner.breakers.retain(|key, _| services.iter().any(|service| self::key(&service.server) == *key));
        let is_listed = |name: &Arc<str>, key: &Key| {
            services.iter().any(|service| service.name == *name && self::key(&service.server) == *key)
        };
        inner.before.retain(|(name, key), _| is_listed(name, key));
        inner.services.clear();
        for service in services {
            let breaker = || Arc::new(Breaker::new(service.server.clone(), self.config));
            inner.breakers.entry(key(&service.server)).or_insert_with(breaker);
            // Several models of a service may be at one server.
            if !inner.services.iter().any(|listed| is_same(listed, &service)) {
                inner.services.push(service);
            }
        }
    }

    /// The breaker of a server.
    pub(super) fn for_server(&self, server: &UpstreamServer) -> Arc<Breaker> {
        let mut inner = self.lock();
        let breaker = || Arc::new(Breaker::new(server.clone(), self.config));
        Arc::clone(inner.breakers.entry(key(server)).or_insert_with(breaker))
    }

    /// Snapshots of all breakers. A provider without a server is listed with a closed breaker.
    pub fn report(&self) -> Vec<BreakerReport> {
        self.reports(&self.lock())
    }

    fn reports(&self, inner: &Inner) -> Vec<BreakerReport> {
        let mut reports: Vec<BreakerReport> = Vec::new();
        for service in inner.listed() {
            let breaker = inner.breakers.get(&key(&service.server));
            let mut report = self.report_of(&service, breaker);
            if reports.iter().any(|other| other.name == report.name) {
                report.name = format!("{}@{}", report.name, service.server);
            }
            reports.push(report);
        }
        reports
    }

    /// One report for each service: the worst state of its servers, and the sums of their counters.
    pub fn report_by_service(&self) -> Vec<BreakerReport> {
        let inner = self.lock();
        let mut reports = self.reports(&inner);
        for report in &mut reports {
            let server =
                UpstreamServer { provider: report.provider, address: report.address.clone(), account: 0 };
            report.totals = inner.counted_by(&report.service, &server, report.totals);
        }
        let mut by_service = worst_by(reports, |report| Arc::clone(&report.service));
        for report in &mut by_service {
            if let Some(totals) = inner.retired.get(&report.service) {
                report.totals += *totals;
            }
        }
        by_service
    }

    /// One report for each provider: the worst state of its servers. It has neither addresses nor configured ids.
    pub fn report_by_provider(&self) -> Vec<BreakerReport> {
        worst_by(self.report(), |report| report.provider.as_str().into())
    }

    /// Closes breakers and resets their counts: all of a provider, of a service or with this name in lists, or only the
    /// one of them at `address`.
    ///
    /// # Errors
    /// There is none.
    pub fn reset(&self, name: &str, address: Option<&str>) -> Result<Vec<BreakerReport>, UnknownBreaker> {
        let bare = name.strip_prefix(PREFIX).unwrap_or(name);
        let mut named = self.report();
        named.retain(|report| {
            report.provider.as_str().eq_ignore_ascii_case(bare)
                || [&*report.service, report.name.as_str()].iter().any(|known| [bare, name].contains(known))
        });
        if named.is_empty() {
            return Err(UnknownBreaker::Name);
        }
        if let Some(address) = address {
            let mut known: Vec<Arc<str>> = named.iter().filter_map(|report| report.address.clone()).collect();
            named.retain(|report| report.address.as_deref().is_some_and(|own| is_address(own, address)));
            if named.is_empty() {
                known.sort();
                known.dedup();
                return Err(UnknownBreaker::Address(known));
            }
        }
        let inner = self.lock();
        for report in &named {
            if let Some(breaker) = inner.breakers.get(&(report.provider, report.address.clone())) {
                breaker.reset();
            }
        }
        Ok(named)
    }

    fn report_of(&self, service: &Service, breaker: Option<&Arc<Breaker>>) -> BreakerReport {
        let new = || Breaker::new(service.server.clone(), self.config).snapshot();
        let snapshot = breaker.map_or_else(new, |breaker| breaker.snapshot());
        BreakerReport {
            name: prefixed(&service.name),
            service: Arc::clone(&service.name),
            provider: service.server.provider,
            address: service.server.address.clone(),
            state: snapshot.state,
            failures: snapshot.counts.failures,
            successes: snapshot.counts.successes,
            probes: snapshot.counts.probes,
            remaining_open: snapshot.remaining_open,
            last_failure: snapshot.last_failure,
            config: self.config,
            totals: snapshot.totals,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worst report of each group, with the sums of the counters, under the group's name.
fn worst_by(reports: Vec<BreakerReport>, group: impl Fn(&BreakerReport) -> Arc<str>) -> Vec<BreakerReport> {
    let mut groups: BTreeMap<Arc<str>, BreakerReport> = BTreeMap::new();
    for report in reports {
        let group = group(&report);
        let mut worst =
            BreakerReport { name: prefixed(&group), service: Arc::clone(&group), address: None, ..report };
        if let Some(other) = groups.remove(&group) {
            let mut totals = other.totals;
            totals += worst.totals;
            let last_failure = worst.last_failure.max(other.last_failure);
            let severity = |report: &BreakerReport| (report.state.severity(), report.failures);
            if severity(&other) > severity(&worst) {
                worst = other;
            }
            worst = BreakerReport { totals, last_failure, ..worst };
        }
        groups.insert(group, worst);
    }
    groups.into_values().collect()
}

impl Inner {
    /// The part of a breaker's counts that a service counts.
    fn counted_by(
        &self,
        service: &Arc<str>,
        server: &UpstreamServer,
        mut totals: BreakerTotals,
    ) -> BreakerTotals {
        if let Some(before) = self.before.get(&(Arc::clone(service), key(server))) {
            totals -= *before;
        }
        totals
    }

    /// The services in the order of lists: the servers of the configuration, then providers that have none, then servers
    /// that a request of an earlier configuration still uses.
    fn listed(&self) -> Vec<Service> {
        let mut listed = self.services.clone();
        let of_provider = |server: UpstreamServer| Service { name: server.provider.as_str().into(), server };
        for provider in ProviderKind::ALL {
            if !listed.iter().any(|service| &*service.name == provider.as_str()) {
                listed.push(of_provider(UpstreamServer::in_process(provider)));
            }
        }
        for breaker in self.breakers.values() {
            if !listed.iter().any(|service| key(&service.server) == key(&breaker.server)) {
                listed.push(of_provider(breaker.server.clone()));
            }
        }
        listed
    }
}

/// The prefix of the names in lists and metrics.
const PREFIX: &str = "embeddings_";

fn prefixed(service: &str) -> String {
    format!("{PREFIX}{service}")
}

fn key(server: &UpstreamServer) -> Key {
    (server.provider, server.address.clone())
}

fn is_same(one: &Service, other: &Service) -> bool {
    one.name == other.name && key(&one.server) == key(&other.server)
}

/// Whether `given` names the address `own`. The port of the scheme may be left out.
fn is_address(own: &str, given: &str) -> bool {
    let given = given.trim().trim_end_matches('/');
    let default_port = if own.starts_with("https:") { ":443" } else { ":80" };
    let without_port = own.strip_suffix(default_port).unwrap_or(own);
    own.eq_ignore_ascii_case(given) || without_port.eq_ignore_ascii_case(given)
}
