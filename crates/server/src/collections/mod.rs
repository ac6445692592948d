//! The service behind the routes of collections and jobs. [`embeddery_ingest`] splits, embeds and stores the texts, and
//! the caller's account is charged. This module does not depend on the wire format.

mod add;
mod document_ids;
mod embed;
mod reembed;
mod search;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Extension, extract::FromRequestParts, http::request::Parts};
use embeddery_accounts::{MeteredCallError, UserId};
use embeddery_core::{EmbedError, RequestContext};
use embeddery_ingest::{Ingest, VectorQuota, WriteError};
use embeddery_store::{CollectionRef, StoreError, StoreErrorKind, VectorStore};

pub(crate) use add::{Added, NewDocument, SplitError};
pub(crate) use document_ids::{DocumentIdentity, DocumentIds, EqualDocument, derived_id, id_hash};
pub(crate) use embed::Model;
pub(crate) use reembed::ReembedTasks;
pub(crate) use search::SearchParams;

use crate::{App, Settings, error::ApiError, metering::MeteredCaller, request_id::RequestId};

/// The collections behind the API.
#[derive(Clone)]
pub struct Collections {
    /// The store of the collections and their vectors.
    pub store: Arc<dyn VectorStore>,
    /// Tracks the vectors that writes of this process have reserved.
    pub quota: Arc<VectorQuota>,
    /// The migrations to another model that run in this process.
    migrations: ReembedTasks,
}

impl Collections {
    /// The collections of a store.
    pub fn new(store: Arc<dyn VectorStore>) -> Self {
        Self { store, quota: Arc::default(), migrations: ReembedTasks::default() }
    }
}

impl App {
    /// The ingest of documents in this process. Workers of the process must use it too, so that they share the quota of
    /// vectors with the requests.
    pub fn ingest(&self) -> Ingest {
        Ingest {
            router: Arc::clone(&self.router),
            store: Arc::clone(&self.collections.store),
            ledger: Arc::clone(&self.accounts.ledger),
            quota: Arc::clone(&self.collections.quota),
        }
    }
}

/// The operations on collections, for one request of one caller.
#[derive(Clone)]
pub(crate) struct CollectionService {
    app: Arc<App>,
    /// The caller, whose account is charged.
    metered: Arc<MeteredCaller>,
    /// The caller's id in the form of the store, which is safe as the name of a directory.
    tenant: Arc<str>,
    request_id: Arc<str>,
    deadline: Option<Instant>,
}

impl CollectionService {
    pub(crate) fn settings(&self) -> &Settings {
        &self.app.settings
    }

    /// The same request without a deadline, for work in the background.
    pub(crate) fn without_deadline(&self) -> Self {
        Self { deadline: None, ..self.clone() }
    }

    pub(crate) fn collection_ref<'a>(&'a self, collection: &'a str) -> CollectionRef<'a> {
        CollectionRef { tenant: &self.tenant, collection }
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.metered.identity.user
    }

    pub(crate) fn store(&self) -> &dyn VectorStore {
        &*self.app.collections.store
    }

    /// Counts the vectors of the caller after a deletion.
    pub(crate) async fn recount(&self) {
        self.app.ingest().recount_after_deletion(self.user()).await;
    }

    /// The time until the deadline; the timeout of a request when there is none.
    fn time_left(&self) -> Duration {
        match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => self.app.settings.request_timeout,
        }
    }

    fn context(&self) -> RequestContext {
        RequestContext {
            deadline: self.deadline,
            trace: self.metered.trace,
            ..RequestContext::new(self.user().shared(), Arc::clone(&self.request_id))
        }
    }
}

impl FromRequestParts<Arc<App>> for CollectionService {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let metered = MeteredCaller::from_request_parts(parts, app).await?;
        let app = Arc::clone(app);
        let id = Extension::<RequestId>::from_request_parts(parts, &app).await;
        let Extension(id) = id.map_err(|_| ApiError::internal())?;
        let deadline = Some(Instant::now() + app.settings.request_timeout);
        let tenant = metered.identity.user.directory_name().into();
        Ok(Self { app, metered: Arc::new(metered), tenant, request_id: id.0, deadline })
    }
}

impl From<MeteredCallError> for ApiError {
    fn from(error: MeteredCallError) -> Self {
        match error {
            MeteredCallError::Quota(exceeded) => exceeded.into(),
            MeteredCallError::Embed(error) => error.into(),
        }
    }
}

/// The delay before the retry of a write whose quota could not be checked.
const QUOTA_RETRY_DELAY: Duration = Duration::from_secs(5);

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Store(error) => error.into(),
            WriteError::StoreTimeout => {
                EmbedError::timeout("the vector store did not respond in time").into()
            }
            WriteError::QuotaExceeded(exceeded) => exceeded.into(),
            WriteError::QuotaReserved => {
                let kind = StoreErrorKind::Unavailable { after: QUOTA_RETRY_DELAY };
                let message =
                    "other writes of the user have reserved the rest of the vector quota; retry later";
                StoreError::new(kind, message).into()
            }
            WriteError::QuotaUnknown(reason) => {
                let kind = StoreErrorKind::Unavailable { after: QUOTA_RETRY_DELAY };
                StoreError::new(kind, format!("the vector quota cannot be checked: {reason}")).into()
            }
        }
    }
}
