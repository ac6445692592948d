//! The words of texts and of queries, the same for every store. Neither store's own parser sees a text: it would know
//! other scripts, and would depend on the locale of a database.
//!
//! - [`normalize`] gives equal texts one form: compatibility forms, case, accents;
//! - [`scripts`] says how the characters of a script form words;
//! - [`units`] splits a text into units and keeps what stands between them;
//! - [`index`] makes the tokens that a store indexes;
//! - [`query`] makes the phrases that a search looks for.
//!
//! # Tokens
//!
//! A word is one token. In scripts that write no spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) and in Korean,
//! whose words carry their particles, each character is the start of one token that also holds the next character; the
//! last character of a run is a token by itself. So a text has one token for each character, the words of a query are
//! phrases of such tokens, and a query of one character is a prefix.
//!
//! A technical form, such as an address, a version, a path or a part number, is its parts at consecutive positions. A
//! second list of tokens holds other spellings of a word: the parts of `camelCase`, `email` for `e-mail`, `1000000` for
//! `1,000,000`, `c++` and `.net`.

mod index;
mod normalize;
mod query;
mod scripts;
mod units;

pub(crate) use index::{IndexedWords, collection_prefix, index_words};
pub(crate) use query::{Phrase, query_phrases};
