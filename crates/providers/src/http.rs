//! The HTTP client of all vendors. Only this module reads the status of a response.
//!
//! A request is sent once with each key at most: with the next key if one is refused or over its rate limit. The result is
//! the body of a successful response or an [`EmbedError`] with the party at fault and the retry decision
//! ([`error_mapping`]). Redirects are not followed, because the key would be sent along. The size of a response is bounded.
//! Nothing is read from the environment.

mod api_keys;
mod base64_refusal;
mod base_url;
mod error_mapping;
mod rate_limit_headers;
mod retry_after;

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use embeddery_core::{
    EmbedError, ErrorKind, Fault, ProviderKind, RateLimitInfo, RateListener, Retry, UpstreamServer,
};
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

/// Timeout of DNS, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of requests without a deadline. No vendor takes that long.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Timeout of [`HttpClient::post_json`]. Traces that are not delivered by then are lost.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response. 2048 vectors of 3072 floats as base64 are 34 MB. As JSON numbers they are more than this;
/// then a call has fewer inputs.
pub(crate) const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Maximum size of an error response that is read for its message.
const MAX_ERROR_BODY_BYTES: usize = 64 << 10;

/// Settings of outgoing requests.
#[derive(Debug, Default)]
pub struct Outbound {
    /// The proxy of all requests except to `no_proxy`. Its URL may contain a password.
    pub proxy: Option<SecretString>,
    /// Hosts that are reached without the proxy, separated by commas.
    pub no_proxy: String,
    /// Trusted certificates (PEM), in addition to those of the system.
    pub certificates: Option<Vec<u8>>,
}

/// An HTTP client with a pool of connections.
pub struct HttpClient {
    client: Client,
}

/// The destination of one model's requests.
pub(crate) struct Target {
    pub provider: ProviderKind,
    pub model: Arc<str>,
    pub url: BaseUrl,
    pub headers: HeaderMap,
    pub keys: Arc<ApiKeyPool>,
    pub listener: Option<Arc<dyn RateListener>>,
    /// The server of `url`, for the listener.
    pub server: UpstreamServer,
}

/// Why a request failed.
pub(crate) struct CallError {
    pub error: EmbedError,
    /// Whether the server names the requested encoding of vectors as the reason.
    pub refuses_base64: bool,
    /// Whether the response exceeded [`MAX_RESPONSE_BYTES`].
    pub is_response_too_long: bool,
}

impl From<EmbedError> for CallError {
    fn from(error: EmbedError) -> Self {
        Self { error, refuses_base64: false, is_response_too_long: false }
    }
}

impl From<CallError> for EmbedError {
    fn from(failure: CallError) -> Self {
        failure.error
    }
}

/// One request.
pub(crate) struct Call {
    pub body: Bytes,
    /// The number of inputs. A single input is never reported as a batch that is too large.
    pub inputs: usize,
    pub deadline: Option<std::time::Instant>,
}

impl Outbound {
    /// Checks the proxy's URL and the certificates.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        self.proxy().and(self.certificates()).map(drop)
    }

    fn proxy(&self) -> Result<Option<Proxy>, String> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        let proxy = Proxy::all(proxy.expose_secret())
            .map_err(|_| "the proxy's URL is invalid; write http://host:port".to_owned())?;
        Ok(Some(proxy.no_proxy(NoProxy::from_string(&self.no_proxy))))
    }

    fn certificates(&self) -> Result<Vec<Certificate>, String> {
        let Some(pem) = &self.certificates else { return Ok(Vec::new()) };
        let certificates = Certificate::from_pem_bundle(pem)
            .map_err(|error| format!("the certificates are invalid: {}", root_cause(&error)))?;
        if certificates.is_empty() {
            return Err("the file contains no certificate; it must be PEM".into());
        }
        Ok(certificates)
    }
}

impl HttpClient {
    /// Creates a client.
    ///
    /// # Errors
    /// The proxy's URL or the certificates are invalid.
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
        let client = builder
            .build()
            .map_err(|error| format!("the HTTPS client cannot be created: {}", root_cause(&error)))?;
        Ok(Self { client })
    }

    /// Posts JSON other than requests to models, such as traces. The body of the response is ignored.
    ///
    /// # Errors
    /// The request failed or was refused; the reason.
    pub async fn post_json(
        &self,
        url: &str,
        headers: &[(String, SecretString)],
        body: Vec<u8>,
    ) -> Result<(), String> {
        let mut headers = self::headers(headers)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response =
            self.client.post(url).headers(headers).body(body).timeout(DELIVERY_TIMEOUT).send().await;
        let status = response.map_err(|error| root_cause(&error))?.status();
        if status.is_success() { Ok(()) } else { Err(format!("the server responded {status}")) }
    }

    /// Sends a request, and sends it again with the next key if a key is refused or over its rate limit. Returns the body
    /// of a successful response.
    pub(crate) async fn post(&self, target: &Target, call: &Call) -> Result<Bytes, CallError> {
        let deadline = call.deadline.map_or_else(|| Instant::now() + CALL_TIMEOUT, Instant::from);
        let (mut refused, mut limited): (_, Option<EmbedError>) = (None, None);
        for key in target.keys.round_robin() {
            if limited.is_some() && target.keys.is_limited(key) {
                continue; // it would be refused as well
            }
            let result = timeout_at(deadline, self.send(target, call, key)).await;
            match result.unwrap_or_else(|_| Err(target.timeout_error().into())) {
                Err(failure) if failure.error.kind == ErrorKind::UpstreamAuth => {
                    target.keys.mark_refused(key);
                    refused = Some(failure.error);
                }
                Err(failure) if failure.error.kind == ErrorKind::RateLimited && target.keys.len() > 1 => {
                    target.keys.mark_limited(key, failure.error.retry);
                    limited = Some(match limited.take() {
                        Some(other) => sooner(other, failure.error),
                        None => failure.error,
                    });
                }
                other => return other,
            }
        }
        // A key that was not tried may be usable earlier than the others.
        let limited = limited.map(|error| match (error.retry, target.keys.limited_for()) {
            (Retry::After(wait), Some(earlier)) => {
                EmbedError { retry: Retry::After(wait.min(earlier)), ..error }
            }
            (Retry::Never, Some(wait)) => target.rate_limit_error(Retry::After(wait)),
            _ => error,
        });
        Err(limited.or(refused).unwrap_or_else(|| target.missing_key_error()).into())
    }

    async fn send(&self, target: &Target, call: &Call, key: usize) -> Result<Bytes, CallError> {
        let mut headers = target.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = target.keys.header(key) {
            // A configured header of that name replaces the key.
            headers.entry(name).or_insert(value);
        }
        let request = self.client.post(target.url.as_url().clone()).headers(headers);
        let response = request.body(call.body.clone()).send().await;
        let response = response.map_err(|error| target.connection_error(&error))?;
        self.read_response(target, call, key, response).await
    }

    async fn read_response(
        &self,
        target: &Target,
        call: &Call,
        key: usize,
        response: Response,
    ) -> Result<Bytes, CallError> {
        if let Some(info) = rate_limit_headers::parse(response.headers()) {
            target.observe(key, info);
        }
        let status = response.status();
        if status.is_success() {
            return body(response, MAX_RESPONSE_BYTES).await.map_err(|error| match error {
                BodyError::TooLong => {
                    let problem = format!("a body of more than {} MB", MAX_RESPONSE_BYTES >> 20);
                    let error = target.malformed(&problem, Retry::Never);
                    CallError { is_response_too_long: true, ..error.into() }
                }
                BodyError::Broken(error) => target.connection_error(&error).into(),
            });
        }
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            tracing::warn!(provider = %target.provider, to, "redirect not followed");
            let problem = "a redirect, which is not followed because the key would be sent along; correct the provider's URL";
            return Err(target.malformed(problem, Retry::Never).into());
        }
        let headers = response.headers().clone();
        let body = body(response, MAX_ERROR_BODY_BYTES).await.unwrap_or_default();
        let failure =
            Failure { target, status: status.as_u16(), headers: &headers, body: &body, inputs: call.inputs };
        let refuses_base64 = base64_refusal::is_refusal(failure.status, failure.body);
        Err(CallError { refuses_base64, ..failure.classify().into() })
    }
}

impl Target {
    /// Fails if a key is required and there is none.
    pub(crate) fn check(&self) -> Result<(), EmbedError> {
        if self.keys.is_usable() { Ok(()) } else { Err(self.missing_key_error()) }
    }

    /// Passes on the rate limits of a response. The limits of one key of several do not hold for the others.
    fn observe(&self, key: usize, info: RateLimitInfo) {
        if self.keys.len() <= 1 {
            if let Some(listener) = &self.listener {
                listener.observe(&self.server, info);
            }
            return;
        }
        for window in [info.requests, info.tokens] {
            if let (Some(0), Some(reset)) = (window.remaining, window.reset) {
                self.keys.mark_limited(key, Retry::After(reset));
            }
        }
    }

    fn rate_limit_error(&self, retry: Retry) -> EmbedError {
        let message = format!("{} limits the rate of requests; retry later", self.provider);
        EmbedError::new(ErrorKind::RateLimited, Fault::Upstream, retry, message)
    }

    fn missing_key_error(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::Unavailable,
            Fault::Us,
            Retry::Never,
            format!("provider '{}' has no key; set {}", self.provider, self.keys.setting()),
        )
    }

    /// The error for a response that does not follow the API. `problem` completes "the vendor responded with ...".
    pub(crate) fn malformed(&self, problem: &str, retry: Retry) -> EmbedError {
        EmbedError::new(
            ErrorKind::InvalidUpstreamResponse,
            Fault::Upstream,
            retry,
            format!("'{}' of {} responded with {problem}", self.model, self.provider),
        )
    }

    /// The error for a deadline that passed.
    fn timeout_error(&self) -> EmbedError {
        EmbedError::new(
            ErrorKind::Timeout,
            Fault::Upstream,
            Retry::Backoff,
            format!("{} did not respond in time", self.provider),
        )
    }

    /// The error for a connection that failed or broke. The host is written to the log only; callers do not see it.
    fn connection_error(&self, error: &reqwest::Error) -> EmbedError {
        let cause = root_cause(error);
        tracing::debug!(provider = %self.provider, host = self.url.host(), cause, "request failed");
        let problem = if error.is_connect() {
            "cannot be reached"
        } else if error.is_body() || error.is_decode() {
            "interrupted its response"
        } else {
            "closed the connection without a response"
        };
        EmbedError::new(
            ErrorKind::Unavailable,
            Fault::Upstream,
            Retry::Backoff,
            format!("{} {problem}", self.provider),
        )
    }
}

/// The error of the key that may be used sooner. A key with an exhausted quota never may.
fn sooner(one: EmbedError, other: EmbedError) -> EmbedError {
    let wait = |error: &EmbedError| match error.retry {
        Retry::After(wait) => (0, wait),
        Retry::Backoff => (1, Duration::ZERO),
        Retry::Never => (2, Duration::ZERO),
    };
    if wait(&other) < wait(&one) { other } else { one }
}

/// Parses the headers that the configuration adds to requests of a provider or model.
pub(crate) fn headers(configured: &[(String, SecretString)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(configured.len() + 4);
    for (name, value) in configured {
        let parsed = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("'{}' is not a valid header name", name.escape_debug()))?;
        if matches!(parsed, CONNECTION | CONTENT_LENGTH | CONTENT_TYPE | TRANSFER_ENCODING) {
            return Err(format!("'{name}' cannot be set; the HTTP client sets it"));
        }
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| format!("the value of '{name}' contains characters that a header cannot have"))?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

/// Why a body could not be read.
enum BodyError {
    TooLong,
    Broken(reqwest::Error),
}

/// Reads a body of at most `max_bytes`.
async fn body(mut response: Response, max_bytes: usize) -> Result<Bytes, BodyError> {
    let announced = response.content_length().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced > max_bytes {
        return Err(BodyError::TooLong);
    }
    let Some(first) = response.chunk().await.map_err(BodyError::Broken)? else { return Ok(Bytes::new()) };
    if announced == first.len() {
        return Ok(first); // a small body arrives in one chunk and needs no copy
    }
    let mut body = Vec::with_capacity(announced.max(first.len() * 2));
    body.extend_from_slice(&first);
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// The innermost cause of an error. It does not contain the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.source().is_none() { "unknown".into() } else { cause.to_string() }
}
