//! The one sender for every vendor, and the one place where a status we receive is read.
//!
//! A request goes out once per key at most; whatever comes back is either the body of a good answer or an
//! [`EmbedError`] that says whose fault it is and what to do ([`error_mapping`]). No redirect is followed, because
//! the key would travel with it; no answer is read beyond a bound; nothing is read from the environment.

mod api_keys;
mod base_url;
mod error_mapping;
mod rate_limit_headers;
mod retry_after;

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use embeddery_core::{EmbedError, ErrorKind, Fault, ProviderKind, RateListener, Retry};
use reqwest::{
    Certificate, Client, NoProxy, Proxy, Response,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
        TRANSFER_ENCODING,
    },
    redirect,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout_at};

pub use api_keys::{ApiKeyPool, KeyHeader};
pub use base_url::BaseUrl;
use error_mapping::Failure;

/// Time for DNS, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For requests without a deadline: longer than any vendor takes, shorter than forever.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Traces that nobody takes by then are lost.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer: 2048 vectors of 3072 floats as base64 are 34 MB.
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// The largest error that is read for its reason.
const MAX_ERROR_BODY_BYTES: usize = 64 << 10;

/// How requests leave this machine.
#[derive(Debug, Default)]
pub struct Outbound {
    /// A proxy for everything but `no_proxy`; its address may hold a password.
    pub proxy: Option<SecretString>,
    /// Hosts that are reached directly, separated by commas.
    pub no_proxy: String,
    /// Certificates (PEM) that are trusted besides the system's.
    pub certificates: Option<Vec<u8>>,
}

/// A pool of connections to everywhere.
pub struct HttpClient {
    client: Client,
}

/// Where one model's requests go.
pub(crate) struct Target {
    pub provider: ProviderKind,
    pub model: Arc<str>,
    pub address: BaseUrl,
    pub headers: HeaderMap,
    pub keys: Arc<ApiKeyPool>,
    pub listener: Option<Arc<dyn RateListener>>,
}

/// One request.
pub(crate) struct Call {
    pub body: Bytes,
    /// Inputs in it: a batch of one is not "too large".
    pub items: usize,
    pub deadline: Option<std::time::Instant>,
}

impl Outbound {
    /// What is wrong with the proxy's address or the certificates, if anything is.
    pub fn check(&self) -> Result<(), String> {
        self.proxy().and(self.certificates()).map(drop)
    }

    fn proxy(&self) -> Result<Option<Proxy>, String> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        let proxy = Proxy::all(proxy.expose_secret())
            .map_err(|_| "the proxy's address cannot be read; write http://host:port".to_owned())?;
        Ok(Some(proxy.no_proxy(NoProxy::from_string(&self.no_proxy))))
    }

    fn certificates(&self) -> Result<Vec<Certificate>, String> {
        let Some(pem) = &self.certificates else { return Ok(Vec::new()) };
        let certificates = Certificate::from_pem_bundle(pem)
            .map_err(|error| format!("the certificates cannot be read: {}", root_cause(&error)))?;
        if certificates.is_empty() {
            return Err("no certificate is in the file; it must be PEM".into());
        }
        Ok(certificates)
    }
}

impl HttpClient {
    /// A sender; fails when the proxy's address or the certificates cannot be read.
    pub fn new(outbound: &Outbound) -> Result<Self, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("embeddery/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy();
        if let Some(proxy) = outbound.proxy()? {
            builder = builder.proxy(proxy);
        }
        let certificates = outbound.certificates()?;
        if !certificates.is_empty() {
            builder = builder.tls_certs_merge(certificates);
        }
        let client =
            builder.build().map_err(|error| format!("no HTTPS on this machine: {}", root_cause(&error)))?;
        Ok(Self { client })
    }

    /// Delivers JSON that is not a question to a model: traces. What comes back says nothing.
    ///
    /// # Errors
    /// When it was not taken, with the reason.
    pub async fn post_json(
        &self,
        url: &str,
        headers: &[(String, SecretString)],
        body: Vec<u8>,
    ) -> Result<(), String> {
        let mut headers = self::headers(headers)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let sent = self.client.post(url).headers(headers).body(body).timeout(DELIVERY_TIMEOUT).send().await;
        let status = sent.map_err(|error| root_cause(&error))?.status();
        if status.is_success() { Ok(()) } else { Err(format!("answered {status}")) }
    }

    /// Sends a request, with another key when the first is refused. Returns the body of a good answer.
    pub(crate) async fn post(&self, target: &Target, call: &Call) -> Result<Bytes, EmbedError> {
        let deadline = call.deadline.map_or_else(|| Instant::now() + CALL_TIMEOUT, Instant::from);
        let mut last = None;
        for key in target.keys.round_robin() {
            let answered = timeout_at(deadline, self.once(target, call, key)).await;
            match answered.unwrap_or_else(|_| Err(target.late())) {
                Err(error) if error.kind == ErrorKind::UpstreamAuth => {
                    target.keys.refused(key);
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| target.no_key()))
    }

    async fn once(&self, target: &Target, call: &Call, key: usize) -> Result<Bytes, EmbedError> {
        let mut headers = target.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = target.keys.header(key) {
            // A configured header of that name is meant to stand in for the key.
            headers.entry(name).or_insert(value);
        }
        let request = self.client.post(target.address.url().clone()).headers(headers);
        let sent = request.body(call.body.clone()).send().await;
        let response = sent.map_err(|error| target.lost(&error))?;
        self.read(target, call, response).await
    }

    async fn read(&self, target: &Target, call: &Call, response: Response) -> Result<Bytes, EmbedError> {
        if let Some(listener) = &target.listener
            && let Some(hint) = rate_limit_headers::hint(response.headers())
        {
            listener.observe(target.provider, hint);
        }
        let status = response.status();
        if status.is_success() {
            return body(response, MAX_RESPONSE_BYTES).await.map_err(|lost| match lost {
                Lost::TooLong => target.malformed(
                    &format!("an answer of more than {} MB", MAX_RESPONSE_BYTES >> 20),
                    Retry::Never,
                ),
                Lost::Broken(error) => target.lost(&error),
            });
        }
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            tracing::warn!(provider = %target.provider, to, "a redirect was not followed");
            return Err(target.malformed(
                "a redirect, which is not followed because the key would travel with it; correct the provider's address",
                Retry::Never,
            ));
        }
        let headers = response.headers().clone();
        let body = body(response, MAX_ERROR_BODY_BYTES).await.unwrap_or_default();
        Err(Failure { target, status: status.as_u16(), headers: &headers, body: &body, items: call.items }
            .classify())
    }
}

impl Target {
    /// Fails when no request can be sent.
    pub(crate) fn check(&self) -> Result<(), EmbedError> {
        if self.keys.usable() { Ok(()) } else { Err(self.no_key()) }
    }

    fn no_key(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::Unavailable,
            Fault::Us,
            Retry::Never,
            format!("provider '{}' has no key; set {}", self.provider, self.keys.setting()),
        )
    }

    /// An answer that is none.
    pub(crate) fn malformed(&self, what: &str, retry: Retry) -> EmbedError {
        EmbedError::new(
            ErrorKind::InvalidUpstreamResponse,
            Fault::Upstream,
            retry,
            format!("'{}' of {} answered {what}", self.model, self.provider),
        )
    }

    /// No answer before the deadline.
    fn late(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::Timeout,
            Fault::Upstream,
            Retry::Backoff,
            format!("{} did not answer in time", self.provider),
        )
    }

    /// A connection that could not be made or broke. Callers do not learn where it was to go; the log does.
    fn lost(&self, error: &reqwest::Error) -> EmbedError {
        let cause = root_cause(error);
        tracing::debug!(provider = %self.provider, host = self.address.host(), cause, "no answer");
        let what = if error.is_connect() {
            "cannot be reached"
        } else if error.is_body() || error.is_decode() {
            "broke off its answer"
        } else {
            "closed the connection without an answer"
        };
        EmbedError::new(
            ErrorKind::Unavailable,
            Fault::Upstream,
            Retry::Backoff,
            format!("{} {what}", self.provider),
        )
    }
}

/// Headers that configuration adds to every request of a provider or model.
pub(crate) fn headers(written: &[(String, SecretString)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(written.len() + 4);
    for (name, value) in written {
        let parsed = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("'{}' is not a header's name", name.escape_debug()))?;
        if matches!(parsed, CONNECTION | CONTENT_LENGTH | CONTENT_TYPE | TRANSFER_ENCODING) {
            return Err(format!("'{name}' cannot be set; it follows from the request"));
        }
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| format!("the value of '{name}' holds characters that no header can carry"))?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

enum Lost {
    TooLong,
    Broken(reqwest::Error),
}

/// The whole body, unless it is longer than `most`.
async fn body(mut response: Response, most: usize) -> Result<Bytes, Lost> {
    let announced = response.content_length().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced > most {
        return Err(Lost::TooLong);
    }
    let Some(first) = response.chunk().await.map_err(Lost::Broken)? else { return Ok(Bytes::new()) };
    if announced == first.len() {
        return Ok(first); // a small answer comes in one piece and needs no copy
    }
    let mut whole = Vec::with_capacity(announced.max(first.len() * 2));
    whole.extend_from_slice(&first);
    while let Some(chunk) = response.chunk().await.map_err(Lost::Broken)? {
        if whole.len() + chunk.len() > most {
            return Err(Lost::TooLong);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// The innermost reason of a failure, which never names the address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.source().is_none() { "unknown".into() } else { cause.to_string() }
}
