//! The API that callers reach now. A configuration that is read anew puts another one in its place between two
//! requests: connections stay, requests under way end as they began.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hyper_util::service::TowerToHyperService;

use crate::{App, routes};

/// Whichever API is in force.
pub struct ReloadableApp(ArcSwap<AppInstance>);

/// An API with its routes.
pub(crate) struct AppInstance {
    pub(crate) app: Arc<App>,
    pub(crate) service: TowerToHyperService<axum::Router>,
}

impl ReloadableApp {
    /// This one, until it is replaced.
    pub fn new(app: App) -> Self {
        Self(ArcSwap::from_pointee(AppInstance::new(app)))
    }

    /// The API in force.
    pub fn app(&self) -> Arc<App> {
        Arc::clone(&self.0.load().app)
    }

    /// From the next request on this one.
    pub fn replace(&self, app: App) {
        self.0.store(Arc::new(AppInstance::new(app)));
    }

    pub(crate) fn running(&self) -> Arc<AppInstance> {
        self.0.load_full()
    }
}

impl AppInstance {
    fn new(app: App) -> Self {
        let app = Arc::new(app);
        Self { service: TowerToHyperService::new(routes(&app)), app }
    }
}
