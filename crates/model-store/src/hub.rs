//! The hub's HTTP interface: what a revision holds, the bytes of a file, and what its refusals mean.
//!
//! `GET {endpoint}/api/models/{repo}/revision/{revision}?blobs=true` lists files with sizes and checksums and
//! names the commit; `GET {endpoint}/{repo}/resolve/{commit}/{path}` gives a file, for large ones by a
//! redirect to another host, to which the access token does not travel (reqwest strips it).

use std::{error::Error as _, fmt, time::Duration};

use embeddery_core::{
    SourceError,
    SourceErrorKind::{self, Corrupt, NotFound, Unauthorized, Unreachable},
};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::{
    checksum::Checksum,
    name::{self, HubName, Revision},
    retry::Failure,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence in a transfer. There is no limit on the whole: a large file may take hours.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest repositories of encoders list some hundred files in well under a megabyte.
const LONGEST_LISTING: usize = 16 << 20;

/// A connection to the hub.
#[derive(Debug)]
pub(crate) struct Hub {
    client: Client,
    endpoint: Url,
    has_token: bool,
}

/// What a revision of a model holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The commit that the revision stands for.
    pub(crate) commit: String,
    pub(crate) files: Vec<RemoteFile>,
}

/// A file of the hub, as announced. What a mirror does not announce is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
    pub(crate) checksum: Option<Checksum>,
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
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error, &what))? {
            if body.len() + chunk.len() > LONGEST_LISTING {
                return Err(self.nonsense(&what, "a listing of more than 16 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
            self.nonsense(&what, &format!("what is no listing ({content_type}: {error})"))
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
    pub(crate) fn lost(&self, error: reqwest::Error, what: &str) -> Failure {
        let message = format!("{} could not be read from {}: {}", what, self.endpoint, chain(error));
        Failure::Passing { error: SourceError::new(Unreachable, message), after: None }
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
        let response = request.send().await.map_err(|error| self.lost(error, what))?;
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
        if may_pass { Failure::Passing { error, after: retry_after(headers) } } else { Failure::Final(error) }
    }

    fn token_advice(&self) -> &'static str {
        if self.has_token {
            "and use an HF_TOKEN whose account has access (the one that is set has none, or is not valid)"
        } else {
            "and set HF_TOKEN to an access token (none is set)"
        }
    }

    fn nonsense(&self, what: &str, answer: &str) -> Failure {
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

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Answer {
    /// Nothing of a listing is used before this: its paths become paths on this disk.
    fn check(self, what: &str) -> Result<Listing, SourceError> {
        let corrupt =
            |why: String| SourceError::new(Corrupt, format!("the hub's listing of {what} is refused: {why}"));
        if !name::is_commit(&self.sha) {
            return Err(corrupt(format!("{:?} is no commit", self.sha)));
        }
        let files = self.siblings.into_iter().map(|sibling| {
            let path = &sibling.rfilename;
            if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
                return Err(corrupt(format!("the path {path:?} leaves the model's directory")));
            }
            let (size, checksum) = match (sibling.lfs, sibling.blob_id) {
                (Some(lfs), _) => {
                    (Some(lfs.size), Some((lfs.sha256.len() == 64, Checksum::Sha256(lfs.sha256))))
                }
                // A git blob id is computed over the length, too.
                (None, Some(id)) if sibling.size.is_some() => {
                    (sibling.size, Some((name::is_commit(&id), Checksum::GitBlob(id))))
                }
                _ => (sibling.size, None),
            };
            match checksum {
                Some((false, checksum)) => Err(corrupt(format!("{checksum} of {path:?} is no checksum"))),
                checksum => {
                    Ok(RemoteFile { path: sibling.rfilename, size, checksum: checksum.map(|(_, sum)| sum) })
                }
            }
        });
        Ok(Listing { commit: self.sha, files: files.collect::<Result<_, _>>()? })
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
pub(crate) fn passing(kind: SourceErrorKind, message: String) -> Failure {
    Failure::Passing { error: SourceError::new(kind, message), after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn check(siblings: &str) -> Result<Listing, SourceError> {
        let answer: Answer =
            serde_json::from_str(&format!(r#"{{"sha":"{COMMIT}","siblings":{siblings}}}"#)).unwrap();
        answer.check("model 'a/b'")
    }

    #[test]
    fn a_listing_with_and_without_checksums() {
        let sha256 = "a".repeat(64);
        let listing = check(&format!(
            r#"[{{"rfilename":"w","size":9,"blobId":"{COMMIT}","lfs":{{"sha256":"{sha256}","size":9,"pointerSize":1}}}},
               {{"rfilename":"d/s","size":2,"blobId":"{COMMIT}"}}, {{"rfilename":"m"}}]"#
        ));
        let file = |path: &str, size, checksum| RemoteFile { path: path.into(), size, checksum };
        let expected = vec![
            file("w", Some(9), Some(Checksum::Sha256(sha256))),
            file("d/s", Some(2), Some(Checksum::GitBlob(COMMIT.into()))),
            file("m", None, None),
        ];
        assert_eq!(listing.unwrap(), Listing { commit: COMMIT.into(), files: expected });
    }

    #[test]
    fn nonsense_in_a_listing_is_refused() {
        for path in ["../x", "a/../x", "/etc/passwd", "a//b", "", "."] {
            let error = check(&format!(r#"[{{"rfilename":"{path}"}}]"#)).unwrap_err();
            assert!(error.kind == Corrupt && error.message.contains("leaves"), "{error}");
        }
        let error = check(r#"[{"rfilename":"x","size":1,"blobId":"../../x"}]"#).unwrap_err();
        assert!(error.message.contains("no checksum"), "{error}");
    }

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
