//! What a stand-in can do instead of answering well.

/// How one request is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should be. Of use inside a script.
    Well,
    /// 429 with `Retry-After` in seconds.
    RateLimited(u64),
    /// 429 with the seconds in the body only, as Google does.
    RateLimitedInBody(u64),
    /// The same, the error being in a list of one, as Google sometimes does.
    RateLimitedInList(u64),
    /// 429 that says the money is gone, as OpenAI does.
    QuotaGone,
    /// An error status with the vendor's own error body.
    Status(u16),
    /// 401 that repeats the key it got, as some vendors do.
    Unauthorized,
    /// No answer, and the connection stays open.
    Hang,
    /// The right answer, one byte now and then.
    Drip,
    /// The connection is reset before anything is answered.
    Reset,
    /// Half of the right answer, then the connection breaks.
    Truncated,
    /// 200 with a web page, as a proxy in between would send.
    Html,
    /// 200 with an empty body.
    Empty,
    /// The last vector is missing.
    FewerVectors,
    /// The right vectors in another order, each with its right `index`. In forms without indices the vectors
    /// are simply right.
    Shuffled,
    /// Two vectors with the same `index`. Only in forms with indices.
    DuplicateIndex,
    /// A number of the first vector is not one: NaN in base64, `NaN` in a list.
    NotANumber,
    /// Vectors one number shorter than the model's.
    WrongLength,
    /// Vectors of differing lengths: the last is one number shorter.
    MixedLengths,
    /// Base64 that is not a whole number of floats. Only in forms that were asked for base64.
    BrokenBase64,
    /// The vendor's "too many tokens in this request", unless the request has at most so many texts.
    TooManyTokensAbove(usize),
    /// The vendor's "this input is longer than the model reads".
    InputTooLong,
    /// The vendor's "no such model".
    NoSuchModel,
    /// An answer of more than 64 MB, sent as fast as it is read.
    Huge,
    /// A redirect to this address.
    Redirect(String),
}
