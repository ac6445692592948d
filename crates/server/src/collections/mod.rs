//! Where the three that do not know each other meet: texts are cut by `chunk`, become vectors in the gateway, and
//! are kept in the store. What a route asks for is done here, step by step; what it looks like on the wire is not
//! known here.

mod add;
mod embed;
mod quota;
mod reembed;
mod search;

use std::{sync::Arc, time::Instant};

use axum::{Extension, extract::FromRequestParts, http::request::Parts};
use embeddery_accounts::UserId;
use embeddery_core::{ProviderKind, RequestContext};
use embeddery_gateway::ModelSelector;
use embeddery_store::{CollectionRef, ModelBinding, VectorStore};

pub(crate) use add::{Added, NewDocument};
pub(crate) use embed::Model;
pub(crate) use reembed::ReembedTasks;
pub(crate) use search::SearchParams;

use crate::{App, Settings, error::ApiError, metering::MeteredCaller, request_id::RequestId};

/// What the API needs for collections.
#[derive(Clone)]
pub struct Collections {
    /// Where they are kept.
    pub store: Arc<dyn VectorStore>,
    /// The moves to another model that run in this process.
    moving: ReembedTasks,
}

impl Collections {
    /// Collections in this store.
    pub fn new(store: Arc<dyn VectorStore>) -> Self {
        Self { store, moving: ReembedTasks::default() }
    }
}

/// One request about collections: on whose behalf, with which parts.
#[derive(Clone)]
pub(crate) struct CollectionService {
    app: Arc<App>,
    /// Pays for what is embedded.
    metered: Arc<MeteredCaller>,
    /// The user as the store names them: safe as a directory's name.
    tenant: Arc<str>,
    request_id: Arc<str>,
    deadline: Option<Instant>,
}

impl CollectionService {
    pub(crate) fn settings(&self) -> &Settings {
        &self.app.settings
    }

    /// The same desk for work that nobody waits for.
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

    fn context(&self) -> RequestContext {
        RequestContext {
            deadline: self.deadline,
            trace: self.metered.trace,
            ..RequestContext::new(self.metered.identity.user.shared(), Arc::clone(&self.request_id))
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

/// How the gateway is asked for a collection's model.
fn selector(binding: &ModelBinding) -> ModelSelector<'_> {
    ModelSelector { model: Some(&binding.model), provider: binding.provider.parse::<ProviderKind>().ok() }
}
