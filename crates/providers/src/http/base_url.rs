//! The URL of a vendor. It is checked once, and appended segments are encoded, so that they cannot inject anything.

use std::fmt;

use reqwest::Url;

/// An `http` or `https` URL without user, password and fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// What is wrong with it. The caller adds the name of the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text.trim())
            .map_err(|error| format!("{} is not a URL ({error}); write https://host/path", shown(text)))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("{} must begin with https:// or http://", shown(text)));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain a user or password; put the key into its own setting".into());
        }
        if url.fragment().is_some() {
            return Err(format!("{} must not contain a fragment (#…)", shown(text)));
        }
        Ok(Self(url))
    }

    /// The path without a trailing slash.
    pub(crate) fn path(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }

    pub(crate) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.0.port_or_known_default()
    }

    /// The address of the server: `scheme://host:port`, always with the port.
    pub(crate) fn address(&self) -> String {
        let port = self.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.0.scheme(), self.host())
    }

    /// The URL with segments appended to its path. Each is encoded, so that a slash in it does not make two.
    pub(crate) fn join(&self, segments: &[&str]) -> Self {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Self(url)
    }

    /// The URL with a query parameter, unless it has one of this name.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        if !self.0.query_pairs().any(|(existing, _)| existing == name) {
            self.0.query_pairs_mut().append_pair(name, value);
        }
        self
    }

    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// The query is left out, because it may contain a secret.
impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.0.scheme(), self.host(), self.0.path())
    }
}

/// The value in quotation marks, unless it may hold a password or a key.
fn shown(text: &str) -> String {
    if text.contains(['@', '?']) {
        "the value (not shown, because it may hold a secret)".into()
    } else {
        format!("'{}'", text.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_urls_are_explained() {
        assert!(BaseUrl::parse("not a url").unwrap_err().contains("is not a URL"));
        for secret in ["htp://u:hunter2@x", "u:hunter2@x", "htps://x/y?key=hunter2", "https://x/?k=hunter2#f"]
        {
            let error = BaseUrl::parse(secret).unwrap_err();
            assert!(error.contains("not shown") && !error.contains("hunter2"), "{error}");
        }
        assert!(BaseUrl::parse("localhost:11434").unwrap_err().contains("must begin with https://"));
        assert!(BaseUrl::parse("ftp://x").unwrap_err().contains("must begin with"));
        let with_password = BaseUrl::parse("https://me:secret@x").unwrap_err();
        assert!(with_password.contains("user or password") && !with_password.contains("secret"));
    }

    #[test]
    fn a_model_name_cannot_leave_its_segment() {
        let base = BaseUrl::parse("https://x/v1/").unwrap();
        let url = base.join(&["models", "a/../b?key=1#c\r\nX: y:batchEmbedContents"]);
        assert_eq!(url.to_string(), "https://x/v1/models/a%2F..%2Fb%3Fkey=1%23cX:%20y:batchEmbedContents");
    }

    #[test]
    fn an_address_has_the_port_and_nothing_of_the_path() {
        let address = |text: &str| BaseUrl::parse(text).unwrap().address();
        assert_eq!(address("https://API.example.com/v1?key=secret"), "https://api.example.com:443");
        assert_eq!(address("http://localhost:11434/api/embed"), "http://localhost:11434");
        assert_eq!(address("http://[::1]/x"), "http://[::1]:80");
    }

    #[test]
    fn a_query_is_kept() {
        let base = BaseUrl::parse("https://x?api-version=7").unwrap();
        let url = base.join(&["openai"]).with_query("api-version", "8").with_query("b", "1");
        assert_eq!(url.to_string(), "https://x/openai?api-version=7&b=1");
    }
}
