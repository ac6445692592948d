//! The behaviours of a fake vendor: a normal response, and faults.

/// How the vendor responds to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// A correct response, for use inside a script.
    Normal,
    /// 429 with `Retry-After` in seconds.
    RateLimited(u64),
    /// 429 with the seconds only in the body, as Google does.
    RateLimitedInBody(u64),
    /// The same, with the error in a list of one element, as Google sometimes does.
    RateLimitedInList(u64),
    /// 429 with the code `insufficient_quota`, as OpenAI does.
    QuotaExhausted,
    /// An error status with the vendor's own error body.
    Status(u16),
    /// 401 with the caller's key in the message, as some vendors do.
    Unauthorized,
    /// No response, and the connection stays open.
    Hang,
    /// The correct response, one byte every 50 ms.
    Drip,
    /// The connection is reset before the response.
    Reset,
    /// Half of the correct response, then the connection is closed.
    Truncated,
    /// 200 with an HTML page, as a proxy may send.
    Html,
    /// 200 with an empty body.
    Empty,
    /// The last vector is missing.
    FewerVectors,
    /// The correct vectors in another order, each with its correct `index`. In an API without indices the response is
    /// correct.
    Shuffled,
    /// Two vectors with the same `index`. Only in an API with indices.
    DuplicateIndex,
    /// The first vector contains a NaN: its bytes in base64, or `NaN` in a list.
    Nan,
    /// Vectors with one dimension less than the model's.
    WrongLength,
    /// Vectors of different lengths: the last one has one dimension less.
    MixedLengths,
    /// Base64 of an incomplete float. Only if the request asks for base64.
    BrokenBase64,
    /// The last vector is all zeros.
    ZeroVector,
    /// The vectors as numbers, although the request asks for base64.
    Numbers,
    /// This JSON instead of each number of tokens.
    TokenCount(String),
    /// This JSON instead of the object with the numbers of tokens.
    Usage(String),
    /// The vendor's error for too many tokens in a request, if the request has more texts than this.
    TooManyTokensAbove(usize),
    /// The vendor's error for an input over the model's limit.
    InputTooLong,
    /// The vendor's error for an unknown model.
    NoSuchModel,
    /// A response of more than 64 MB, sent as fast as the client reads it.
    Huge,
    /// A redirect to this URL.
    Redirect(String),
}
