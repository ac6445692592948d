//! What the audit log records of a request.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::MatchedPath,
    http::{Method, request::Parts},
};
use embeddery_accounts::{AuditEvent, UserId};

use crate::{App, client_ip, request_id::RequestId};

/// The address, route and id of a request, which every event in the audit log has.
pub(crate) struct AuditContext {
    pub(crate) address: Option<IpAddr>,
    method: Method,
    route: Arc<str>,
    request_id: Arc<str>,
}

impl AuditContext {
    pub(crate) fn from_parts(parts: &Parts, app: &App) -> Self {
        let extensions = &parts.extensions;
        Self {
            address: client_ip::from_request(extensions, &parts.headers, &app.settings.trusted_proxies),
            method: parts.method.clone(),
            // The route and not the path, because a path can contain anything.
            route: extensions.get::<MatchedPath>().map_or("none", MatchedPath::as_str).into(),
            request_id: extensions.get::<RequestId>().map_or_else(|| "".into(), |id| Arc::clone(&id.0)),
        }
    }

    pub(crate) fn event<'a>(&'a self, event: &'static str, user: Option<&'a str>) -> AuditEvent<'a> {
        AuditEvent {
            event,
            user,
            address: self.address,
            method: self.method.as_str(),
            route: &self.route,
            request_id: &self.request_id,
            subject: None,
            changed: None,
            reason: None,
            status: None,
        }
    }
}

/// A request of an administrator to a route that only administrators may use.
pub(crate) struct AdminAction {
    user: UserId,
    context: AuditContext,
}

impl AdminAction {
    pub(crate) fn new(user: UserId, context: AuditContext) -> Self {
        Self { user, context }
    }

    pub(crate) fn event(&self, event: &'static str) -> AuditEvent<'_> {
        self.context.event(event, Some(self.user.as_str()))
    }
}
