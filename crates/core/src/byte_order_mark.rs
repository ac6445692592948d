//! The byte order mark, which Windows programs write at the start of UTF-8 files. It is not part of the content.

/// `bytes` without one U+FEFF at their start. For the start of a file, a body or a line of JSON: elsewhere the character is
/// part of the text.
///
/// ```
/// # use embeddery_core::without_byte_order_mark;
/// assert_eq!(without_byte_order_mark("\u{feff}{}".as_bytes()), b"{}");
/// assert_eq!(without_byte_order_mark("a\u{feff}".as_bytes()), "a\u{feff}".as_bytes());
/// ```
pub fn without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}
