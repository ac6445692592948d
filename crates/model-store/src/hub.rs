//! The hub's HTTP interface: what a revision holds, the bytes of a file, and what its refusals mean.
//!
//! `GET {endpoint}/api/models/{repo}/revision/{revision}?blobs=true` lists files with sizes and checksums and
//! names the commit; `GET {endpoint}/{repo}/resolve/{commit}/{path}` gives a file, for large ones by a
//! redirect to another host, to which the access token does not travel (reqwest strips it).

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
/// The longest silence in a transfer. There is no limit on the whole: a large file may take hours.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest repositories of encoders list some hundred files in well under a megabyte.
const MAX_LISTING_BYTES: usize = 16 << 20;

/// A connection to the hub.
#[derive(Debug)]
pub(crate) struct Hub {
    client: Client,
    endpoint: Url,
    has_token: bool,
}

/// Reads the hub's address.
pub(crate) fn parse_endpoint(endpoint: &str) -> Result<Url, SourceError> {
    let wrong = |why: &str| {
        SourceError::new(
            Unreachable,
            format!("the hub's endpoint (HF_ENDPOINT) {why}; the default is https://huggingface.co"),
        )
    };
    let url = Url::parse(endpoint.trim()).map_err(|error| wrong(&format!("is not an address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not carry a user or password; a token belongs in HF_TOKEN"));
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
                        "HF_TOKEN holds characters that no token has (a line break?)",
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
                SourceError::new(Unreachable, format!("no HTTPS on this machine: {}", chain(error)))
            })?;
        Ok(Self { client, endpoint, has_token: token.is_some() })
    }

    /// What a revision holds.
    pub(crate) async fn listing(&self, name: &HubName, revision: &Revision) -> Result<Listing, Failure> {
        let mut segments = vec!["api", "models"];
        segments.extend(name.segments());
        segments.extend(["revision", revision.as_str()]);
        let mut url = self.url(&segments);
        url.set_query(Some("blobs=true"));
        let what = format!("model '{name}' at revision '{revision}'");
        let mut response = self.get(url, 0, &what).await?;
        let content_type = header(response.headers(), CONTENT_TYPE.as_str()).to_owned();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.connection_error(error, &what))? {
            if body.len() + chunk.len() > MAX_LISTING_BYTES {
                return Err(self.malformed(&what, "a listing of more than 16 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: listing::Answer = serde_json::from_slice(&body).map_err(|error| {
            self.malformed(&what, &format!("what is no listing ({content_type}: {error})"))
        })?;
        answer.check(&what).map_err(Failure::Final)
    }

    /// A file from `offset` on. The answer is 200 (the whole), 206 (the rest) or 416 (nothing is left).
    pub(crate) async fn file(&self, at: &FileAddress<'_>, offset: u64) -> Result<Response, Failure> {
        let mut segments: Vec<&str> = at.name.segments().collect();
        segments.extend(["resolve", at.commit]);
        segments.extend(at.path.split('/'));
        self.get(self.url(&segments), offset, &at.to_string()).await
    }

    /// A failure of a transfer that had begun.
    pub(crate) fn connection_error(&self, error: reqwest::Error, what: &str) -> Failure {
        let message = format!("{} could not be read from {}: {}", what, self.endpoint, chain(error));
        Failure::Transient { error: SourceError::new(Unreachable, message), after: None }
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // An address with a host always has segments; `push` escapes the slashes of refs/pr/1, as the hub wants.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn get(&self, url: Url, offset: u64, what: &str) -> Result<Response, Failure> {
        let mut request = self.client.get(url);
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().await.map_err(|error| self.connection_error(error, what))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => Ok(response),
            _ => Err(self.refusal(&response, what)),
        }
    }

    /// What a refusal means. The hub answers 401 for models that do not exist, too; its error code tells.
    fn refusal(&self, response: &Response, what: &str) -> Failure {
        let (status, headers) = (response.status(), response.headers());
        let code = header(headers, "x-error-code");
        let said = header(headers, "x-error-message");
        // Default ports are left out: http and https of one host are the same place.
        let place = |url: &Url| (url.host_str().map(str::to_owned), url.port());
        let elsewhere = place(response.url()) != place(&self.endpoint);
        let (kind, meaning) = match (status, code) {
            // A storage host knows nothing of tokens: its signed address ran out, and the hub signs a new one.
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if elsewhere => {
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
            (_, "RepoNotFound") if !said.starts_with("Invalid credentials") => (
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
            _ => (Unreachable, format!("could not be had from {}", self.endpoint)),
        };
        let mut message = format!("{what} {meaning} (HTTP {}", status.as_u16());
        if !said.is_empty() {
            message.push_str(": ");
            message.extend(said.chars().take(200).flat_map(char::escape_debug));
        }
        message.push(')');
        let error = SourceError::new(kind, message);
        let may_pass = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            || (elsewhere && kind == Unreachable);
        if may_pass {
            Failure::Transient { error, after: retry_after(headers) }
        } else {
            Failure::Final(error)
        }
    }

    fn token_advice(&self) -> &'static str {
        if self.has_token {
            "and use an HF_TOKEN whose account has access (the one that is set has none, or is not valid)"
        } else {
            "and set HF_TOKEN to an access token (none is set)"
        }
    }

    fn malformed(&self, what: &str, answer: &str) -> Failure {
        let message =
            format!("{} answered {answer} when asked for {what}; is it a Hugging Face hub?", self.endpoint);
        Failure::Final(SourceError::new(Unreachable, message))
    }
}

/// Which file of which commit.
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

/// The pause a server asks for, in seconds; the form with a date is not used by hubs.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    header(headers, RETRY_AFTER.as_str()).trim().parse().ok().map(Duration::from_secs)
}

/// An HTTP error with all its causes, without the address: a signed one is a secret.
fn chain(error: reqwest::Error) -> String {
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

/// An error for a transfer that ended in a way no HTTP error describes.
pub(crate) fn is_transient(kind: SourceErrorKind, message: String) -> Failure {
    Failure::Transient { error: SourceError::new(kind, message), after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
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
