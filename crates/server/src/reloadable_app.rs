//! An [`App`] that can be replaced while the server runs. Connections stay open, and a request that has begun finishes
//! with the `App` that it began with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hyper_util::service::TowerToHyperService;

use crate::{App, routes};

/// The current [`App`] and its routes.
pub struct ReloadableApp(ArcSwap<AppInstance>);

/// An [`App`] with its routes.
pub(crate) struct AppInstance {
    pub(crate) app: Arc<App>,
    pub(crate) service: TowerToHyperService<axum::Router>,
}

impl ReloadableApp {
    /// Starts with `app`.
    pub fn new(app: App) -> Self {
        Self(ArcSwap::from_pointee(AppInstance::new(app)))
    }

    /// The current `App`.
    pub fn app(&self) -> Arc<App> {
        Arc::clone(&self.0.load().app)
    }

    /// Replaces the current `App`. The next request uses the new one.
    pub fn replace(&self, app: App) {
        self.0.store(Arc::new(AppInstance::new(app)));
    }

    pub(crate) fn current(&self) -> Arc<AppInstance> {
        self.0.load_full()
    }
}

impl AppInstance {
    fn new(app: App) -> Self {
        let app = Arc::new(app);
        Self { service: TowerToHyperService::new(routes(&app)), app }
    }
}
