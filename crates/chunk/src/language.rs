//! Programming languages with a known grammar. `code` splits them between functions and statements, and any other
//! text as prose.

use tree_sitter::Language as Grammar;

/// A programming language with a known grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Go.
    Go,
    /// Java.
    Java,
    /// JavaScript, JSX included.
    JavaScript,
    /// Python.
    Python,
    /// Rust.
    Rust,
    /// TypeScript and TSX.
    TypeScript,
}

impl Language {
    /// All values.
    pub const ALL: [Self; 6] =
        [Self::Go, Self::Java, Self::JavaScript, Self::Python, Self::Rust, Self::TypeScript];

    /// The language's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Java => "java",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Rust => "rust",
            Self::TypeScript => "typescript",
        }
    }

    /// Finds the language of a content type: a MIME type with or without parameters (`text/x-python; charset=utf-8`),
    /// a language's name, or a file extension (`rs`, `.tsx`).
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let name = match essence.split_once('/') {
            Some(("text" | "application", subtype)) => subtype.trim_start_matches("x-"),
            Some(_) => return None,
            None => essence.trim_start_matches('.'),
        };
        Some(match name {
            "go" | "golang" => Self::Go,
            "java" | "java-source" => Self::Java,
            "javascript" | "ecmascript" | "js" | "mjs" | "cjs" | "jsx" => Self::JavaScript,
            "python" | "py" | "pyi" | "python-script" | "script.python" => Self::Python,
            "rust" | "rs" | "rust-source" => Self::Rust,
            "typescript" | "ts" | "tsx" | "mts" | "cts" => Self::TypeScript,
            _ => return None,
        })
    }

    pub(crate) fn grammar(self) -> Grammar {
        match self {
            Self::Go => tree_sitter_go::LANGUAGE,
            Self::Java => tree_sitter_java::LANGUAGE,
            Self::JavaScript => tree_sitter_javascript::LANGUAGE,
            Self::Python => tree_sitter_python::LANGUAGE,
            Self::Rust => tree_sitter_rust::LANGUAGE,
            // The TSX grammar also parses plain TypeScript, except for casts written `<T>x`.
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TSX,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_name_languages() {
        for (content_type, language) in [
            ("text/x-python; charset=utf-8", Language::Python),
            ("application/javascript", Language::JavaScript),
            ("TEXT/RUST", Language::Rust),
            ("text/x-java-source", Language::Java),
            ("golang", Language::Go),
            (".tsx", Language::TypeScript),
        ] {
            assert_eq!(Language::from_content_type(content_type), Some(language), "{content_type}");
        }
        for unknown in ["", "text/plain", "text/markdown", "image/x-python", "c++"] {
            assert_eq!(Language::from_content_type(unknown), None, "{unknown}");
        }
        for language in Language::ALL {
            assert_eq!(Language::from_content_type(language.as_str()), Some(language));
        }
    }
}
