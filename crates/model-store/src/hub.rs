//! The hub's HTTP API: the listing of a revision, the content of a file, and the meaning of error responses.
//!
//! `GET {endpoint}/api/models/{repo}/revision/{revision}?blobs=true` returns the commit and lists the files with sizes
//! and checksums. `GET {endpoint}/{repo}/resolve/{commit}/{path}` returns a file. Large files are redirected to a storage
//! host. reqwest does not send the access token to that host.

mod listing;

use std::{error::Error as _, fmt, time::Duration};

use embeddery_core::{
    SourceError,
    SourceErrorKind::{self, NotFound, Unauthorized, Unreachable},
};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    model_name::{HubName, Revision},
    retry::Failure,
};

pub(crate) use listing::{Listing, RemoteFile};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time without a byte in a transfer. The whole transfer has no limit, because a large file may take hours.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a listing. The largest encoder repositories list some hundred files in well under a megabyte.
const MAX_LISTING_BYTES: usize = 16 << 20;

/// A client of the hub.
#[derive(Debug)]
pub(crate) struct Hub {
    client: Client,
    endpoint: Url,
    has_token: bool,
}

/// Parses and checks the hub's URL.
pub(crate) fn parse_endpoint(endpoint: &str) -> Result<Url, SourceError> {
    let invalid = |problem: &str| {
        SourceError::new(
            Unreachable,
            format!("the hub's endpoint (HF_ENDPOINT) {problem}; the default is https://huggingface.co"),
        )
    };
    let url = Url::parse(endpoint.trim()).map_err(|error| invalid(&format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("must not contain a user or password; put the token into HF_TOKEN"));
    }
    Ok(url)
}

impl Hub {
    pub(crate) fn connect(endpoint: Url, token: Option<&SecretString>) -> Result<Self, SourceError> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| {
                    SourceError::new(
                        Unauthorized,
                        "HF_TOKEN contains characters that a token cannot have (a line break?)",
                    )
                })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = Client::builder()
            .user_agent(concat!("embeddery/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .default_headers(headers)
            .build()
            .map_err(|error| {
                SourceError::new(
                    Unreachable,
                    format!("the HTTPS client cannot be created: {}", error_chain(error)),
                )
            })?;
        Ok(Self { client, endpoint, has_token: token.is_some() })
    }

    /// The files of a revision.
    pub(crate) async fn listing(&self, name: &HubName, revision: &Revision) -> Result<Listing, Failure> {
        let mut segments = vec!["api", "models"];
        segments.extend(name.segments());
        segments.extend(["revision", revision.as_str()]);
        let mut url = self.url(&segments);
        url.set_query(Some("blobs=true"));
        let subject = format!("model '{name}' at revision '{revision}'");
        let mut response = self.get(url, 0, &subject).await?;
        let content_type = header(response.headers(), CONTENT_TYPE.as_str()).to_owned();
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.connection_error(error, &subject))?
        {
            if body.len() + chunk.len() > MAX_LISTING_BYTES {
                return Err(self.malformed(&subject, "a listing of more than 16 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        let response: listing::ListingResponse = serde_json::from_slice(&body).map_err(|error| {
            self.malformed(&subject, &format!("something that is not a listing ({content_type}: {error})"))
        })?;
        response.validate(&subject).map_err(Failure::Final)
    }

    /// The content of a file from `offset` on. The response has status 200 (the whole file), 206 (the rest) or 416 (there
    /// is no rest).
    pub(crate) async fn file(&self, at: &FileAddress<'_>, offset: u64) -> Result<Response, Failure> {
        let mut segments: Vec<&str> = at.name.segments().collect();
        segments.extend(["resolve", at.commit]);
        segments.extend(at.path.split('/'));
        self.get(self.url(&segments), offset, &at.to_string()).await
    }

    /// A connection that failed or broke.
    pub(crate) fn connection_error(&self, error: reqwest::Error, subject: &str) -> Failure {
        let message = format!("{} could not be read from {}: {}", subject, self.endpoint, error_chain(error));
        transient(Unreachable, message)
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // A URL with a host always has segments. `extend` escapes the slashes of refs/pr/1, as the hub requires.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn get(&self, url: Url, offset: u64, subject: &str) -> Result<Response, Failure> {
        let mut request = self.client.get(url);
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().await.map_err(|error| self.connection_error(error, subject))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => Ok(response),
            _ => Err(self.error_response(&response, subject)),
        }
    }

    /// The meaning of an error response. The hub responds 401 to names that do not exist, too; the header `x-error-code`
    /// tells the two apart.
    fn error_response(&self, response: &Response, subject: &str) -> Failure {
        let (status, headers) = (response.status(), response.headers());
        let code = header(headers, "x-error-code");
        let hub_message = header(headers, "x-error-message");
        // `port` leaves default ports out, so http and https of one host are equal.
        let host = |url: &Url| (url.host_str().map(str::to_owned), url.port());
        let is_storage_host = host(response.url()) != host(&self.endpoint);
        let (kind, meaning) = match (status, code) {
            // A storage host does not check tokens. The signed URL has expired, and the hub signs a new one.
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if is_storage_host => {
                (Unreachable, "was refused by the hub's storage host".to_owned())
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, "GatedRepo") => (
                Unauthorized,
                format!(
                    "is gated: accept its conditions on its page at {}, {}",
                    self.endpoint,
                    self.token_advice()
                ),
            ),
            (_, "RepoNotFound") if !hub_message.starts_with("Invalid credentials") => (
                NotFound,
                format!(
                    "does not exist at {}, or is private: check the name, {}",
                    self.endpoint,
                    self.token_advice()
                ),
            ),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                (Unauthorized, format!("was refused by {}: {}", self.endpoint, self.token_advice()))
            }
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => {
                (NotFound, format!("does not exist at {}", self.endpoint))
            }
            _ => (Unreachable, format!("could not be downloaded from {}", self.endpoint)),
        };
        let mut message = format!("{subject} {meaning} (HTTP {}", status.as_u16());
        if !hub_message.is_empty() {
            message.push_str(": ");
            message.extend(hub_message.chars().take(200).flat_map(char::escape_debug));
        }
        message.push(')');
        let error = SourceError::new(kind, message);
        let is_transient = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            || (is_storage_host && kind == Unreachable);
        if is_transient {
            Failure::Transient { error, retry_after: retry_after(headers) }
        } else {
            Failure::Final(error)
        }
    }

    fn token_advice(&self) -> &'static str {
        if self.has_token {
            "and use an HF_TOKEN whose account has access (the current one has no access, or is not valid)"
        } else {
            "and set HF_TOKEN to an access token (none is set)"
        }
    }

    fn malformed(&self, subject: &str, response: &str) -> Failure {
        let message = format!(
            "{} responded with {response} to a request for {subject}; check that it is a Hugging Face hub",
            self.endpoint
        );
        Failure::Final(SourceError::new(Unreachable, message))
    }
}

/// One file of one commit.
pub(crate) struct FileAddress<'a> {
    pub(crate) name: &'a HubName,
    pub(crate) commit: &'a str,
    pub(crate) path: &'a str,
}

impl fmt::Display for FileAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file '{}' of model '{}' at commit {}", self.path, self.name, self.commit)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The wait that the header `Retry-After` asks for, in seconds. Hubs do not use its form with a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    header(headers, RETRY_AFTER.as_str()).trim().parse().ok().map(Duration::from_secs)
}

/// An HTTP error with all its causes, without the URL, because a signed URL is a secret.
fn error_chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A failure that a later attempt may not have.
pub(crate) fn transient(kind: SourceErrorKind, message: String) -> Failure {
    Failure::Transient { error: SourceError::new(kind, message), retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_joined_and_checked() {
        let hub = |endpoint| Hub::connect(parse_endpoint(endpoint).unwrap(), None).unwrap();
        for endpoint in ["https://mirror.example/hf", "https://mirror.example/hf/"] {
            let url = hub(endpoint).url(&["a", "revision", "refs/pr/1"]);
            assert_eq!(url.as_str(), "https://mirror.example/hf/a/revision/refs%2Fpr%2F1");
        }
        for bad in ["", "huggingface.co", "ftp://x", "https://user:secret@x"] {
            let error = parse_endpoint(bad).unwrap_err();
            assert!(error.message.contains("HF_ENDPOINT") && !error.message.contains("secret"), "{error}");
        }
    }
}
