//! The sizes of chunks in real tokens, for models with a known tokenizer and for those with an estimate. OpenAI's
//! tokenizer stands in for those that are not known.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use embeddery_chunk::{ChunkConfig, Method, Unit};
use embeddery_core::{
    BoxFuture, Embedder, InputType, ModelRef, ModelSource, Progress, Provider as _, ProviderKind,
    SourceError, SourceErrorKind, TokenCounter, conservative_token_estimate,
};
use embeddery_ingest::{ModelReader, SplitTextError, split};
use embeddery_providers::{
    Catalogue, Endpoint, HttpClient, ModelSettings, Outbound, Vendor, VendorConfig,
    local::{Local, LocalConfig, MemoryBudget, MemoryLimits, ResourcesConfig, SharedResources},
};
use proptest::prelude::*;

/// A model with its real tokens.
struct Subject {
    name: &'static str,
    reader: ModelReader,
    counter: Arc<dyn TokenCounter>,
    /// Tokens that the model reads, without those that it adds.
    window: usize,
}

impl Subject {
    async fn new(name: &'static str, model: Arc<dyn Embedder>) -> Self {
        let counter = model.token_counter().await.unwrap();
        let window = model.model().max_tokens.unwrap().get() - counter.added_tokens();
        Self { name, reader: ModelReader::open(&*model).await.unwrap(), counter, window }
    }

    fn real_tokens(&self, text: &str) -> usize {
        if self.counter.is_exact() { self.counter.count(text) } else { openai_tokens(text) }
    }

    /// Checks all chunks of a text.
    fn check(&self, text: &str, config: ChunkConfig) -> Result<(), TestCaseError> {
        let chunks = split(text, config, &self.reader, &|| false).unwrap();
        for span in &chunks {
            let chunk = &text[span.bytes.start as usize..span.bytes.end as usize];
            let tokens = self.real_tokens(chunk);
            let at = || format!("{} by {config:?}: {tokens} tokens in {chunk:?}", self.name);
            prop_assert!(tokens <= self.window, "above the window: {}", at());
            if config.unit() == Unit::Tokens {
                let size = config.size();
                let max = if self.counter.is_exact() { size * 11 / 10 } else { 2 * size };
                prop_assert!(tokens <= max, "{}", at());
            }
        }
        prop_assert!(!chunks.is_empty() || text.trim().is_empty());
        Ok(())
    }
}

fn openai_tokens(text: &str) -> usize {
    tiktoken_rs::cl100k_base_singleton().count_ordinary(text)
}

async fn vendor(kind: ProviderKind, model: &str, settings: ModelSettings) -> Arc<dyn Embedder> {
    let config = VendorConfig {
        kind,
        endpoint: Endpoint { keys: vec!["test-key".into()], ..Endpoint::default() },
        models: HashMap::from([(ModelRef::new(model), settings)]),
        catalogue: Arc::new(Catalogue::built_in().unwrap()),
        client: Arc::new(HttpClient::new(&Outbound::default()).unwrap()),
        listener: None,
    };
    Vendor::new(config).unwrap().open(&ModelRef::new(model)).await.unwrap()
}

/// The models in the repository's directory.
struct Models(PathBuf);

impl ModelSource for Models {
    fn find(&self, model: &ModelRef) -> Result<Option<PathBuf>, SourceError> {
        Ok(Some(self.0.join(&*model.name)))
    }

    fn fetch<'a>(&'a self, _: &'a ModelRef, _: &'a Progress) -> BoxFuture<'a, Result<PathBuf, SourceError>> {
        Box::pin(async { Err(SourceError::new(SourceErrorKind::NotFound, "no downloads")) })
    }

    fn list(&self) -> Vec<String> {
        Vec::new()
    }
}

async fn minilm() -> Arc<dyn Embedder> {
    let resources = ResourcesConfig {
        threads: NonZeroUsize::new(1).unwrap(),
        memory: MemoryBudget::new(MemoryLimits::default(), Duration::ZERO),
        queue_tokens: 1_000_000,
        unload_after: Duration::ZERO,
    };
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/embedding_models_data");
    let config = LocalConfig {
        resources: SharedResources::new(resources).unwrap(),
        source: Arc::new(Models(base)),
        auto_download: false,
        models: Default::default(),
    };
    let local = Local::new(config, embeddery_engine::Precision::F32);
    local.open(&ModelRef::new("sentence-transformers/all-MiniLM-L6-v2")).await.unwrap()
}

static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    // The runtime outlives the models: they have tasks in it.
    let runtime = Box::leak(Box::new(tokio::runtime::Runtime::new().unwrap()));
    runtime.block_on(async {
        let prompts = HashMap::from([(InputType::Document, "search_document: ".into())]);
        let mut subjects = vec![Subject::new("MiniLM", minilm().await).await];
        for (kind, model, settings) in [
            (ProviderKind::OpenAi, "text-embedding-3-small", ModelSettings::default()),
            (
                ProviderKind::OpenAi,
                "text-embedding-3-large",
                ModelSettings { prompts, ..ModelSettings::default() },
            ),
            (ProviderKind::Cohere, "embed-multilingual-v3.0", ModelSettings::default()),
            (ProviderKind::Google, "gemini-embedding-2", ModelSettings::default()),
            (ProviderKind::Mistral, "mistral-embed", ModelSettings::default()),
            (ProviderKind::Voyage, "voyage-4", ModelSettings::default()),
        ] {
            subjects.push(Subject::new(model, vendor(kind, model, settings).await).await);
        }
        subjects
    })
});

fn configs() -> Vec<ChunkConfig> {
    let mut configs = vec![ChunkConfig::default()];
    for (method, unit, size) in [
        (Method::Recursive, Unit::Tokens, 40),
        (Method::Recursive, Unit::Characters, 100_000),
        (Method::Words, Unit::Words, 50_000),
        (Method::Paragraphs, Unit::Words, 50_000),
        (Method::Sentences, Unit::Tokens, 1000),
        (Method::Markdown, Unit::Tokens, 256),
        (Method::Code, Unit::Tokens, 256),
        (Method::Tokens, Unit::Tokens, 256),
    ] {
        let config = ChunkConfig::new(method, Some(size), None, Some(unit)).unwrap();
        configs.push(config.with_content_type(Some("rust")));
    }
    configs
}

const CHINESE: &str = "快速的棕色狐狸跳过了懒惰的狗。今天天气很好,我们去公园散步吧!";
const JAPANESE: &str = "素早い茶色の狐がのろまな犬を飛び越える。今日はとても良い天気ですね。コンピューター";
const THAI: &str = "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ วันนี้อากาศดีมาก";
const HINDI: &str = "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। आज मौसम बहुत अच्छा है। ";
const ARABIC: &str = "الثعلب البني السريع يقفز فوق الكلب الكسول. الطقس جميل اليوم. ";
const RUSSIAN: &str = "Быстрая коричневая лиса перепрыгивает через ленивую собаку. Сегодня хорошая погода. ";
const KOREAN: &str = "빠른 갈색 여우가 게으른 개를 뛰어넘습니다. 오늘은 날씨가 매우 좋습니다. ";
const ENGLISH: &str = "The quick brown fox jumps over the lazy dog. It's a lovely day, isn't it? ";
const CODE: &str = "fn main() {\n    let x_1 = vec![1, 2, 3];\n    for (i, v) in x_1.iter().enumerate() {\n        println!(\"{i}: {v}\");\n    }\n}\n\n";

/// Texts of one kind, each long enough for several chunks.
fn texts() -> Vec<String> {
    let base64: String = (0_u64..6000)
        .map(|n| {
            let digit = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
            char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[digit as usize])
        })
        .collect();
    let row = |n: usize| format!("| {n} | {} | {}.{:02} | x |\n", n * 7919, n % 90, n % 100);
    vec![
        CHINESE.repeat(360),
        JAPANESE.repeat(60),
        THAI.repeat(60),
        HINDI.repeat(60),
        ARABIC.repeat(60),
        RUSSIAN.repeat(60),
        KOREAN.repeat(60),
        ENGLISH.repeat(120),
        "Die größte Überraschung für Ärzte: Straßenbahnhaltestellenverzeichnis. ".repeat(80),
        CODE.repeat(60),
        (0..600).map(row).collect(),
        "|---|---|\n".repeat(400),
        "a b c d e f g ".repeat(400),
        "I a x ".repeat(900),
        base64,
        "Donaudampfschifffahrtsgesellschaftskapitän".repeat(80),
        "x".repeat(9000),
        "😀😃🎉🚀".repeat(400),
        "👩‍👩‍👧‍👦 🏳️‍🌈 ".repeat(200),
        ('\u{4E00}'..='\u{6000}').collect(),
        ('\u{12000}'..='\u{12300}').collect(),
        format!("a{}b", "\n".repeat(4000)),
        "a\tb\n\n  c\r\n".repeat(300),
        "2026-12-01T00:55:00Z 192.168.0.1 0xDEADBEEF\n".repeat(120),
        "getElementByIdAndClassName(some_long_snake_case_name);\n".repeat(80),
    ]
}

#[test]
fn chunks_of_every_kind_of_text_fit_every_model() {
    for text in texts() {
        for subject in &*SUBJECTS {
            for config in configs() {
                subject.check(&text, config).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_of_random_text_fit_every_model(
        parts in prop::collection::vec(
            prop_oneof![
                "[\\u{4E00}-\\u{9FFF}]{1,40}", "[\\u{3040}-\\u{30FF}]{1,40}", "[\\u{0E01}-\\u{0E4E}]{1,40}",
                "[\\u{0904}-\\u{0939} ]{1,40}", "[\\u{0621}-\\u{064A} ]{1,40}", "[а-яА-Я ,.]{1,60}",
                "[\\u{1F600}-\\u{1F64F}\\u{200D}]{1,20}", "[a-z] [a-z] [a-z] ", "[A-Za-z0-9+/]{20,100}",
                "([a-z]{2,9} ){1,20}", "(\\| [0-9]{1,6} ){1,10}\\|\n", "[(){};=<>\\[\\]_.,-]{1,30}", "\n{1,3}",
                "\\PC{1,30}",
            ],
            40..120,
        ),
    ) {
        let text = parts.concat();
        for subject in &*SUBJECTS {
            for config in configs() {
                subject.check(&text, config)?;
            }
        }
    }
}

#[test]
fn the_default_divides_what_was_one_chunk() {
    let texts = [CHINESE.repeat(360), "a b c d e f g ".repeat(400), "|---|---|\n".repeat(400)];
    for subject in &*SUBJECTS {
        for text in &texts {
            let chunks = split(text, ChunkConfig::default(), &subject.reader, &|| false).unwrap();
            let least = subject.real_tokens(text) / 512;
            assert!(chunks.len() > least, "{}: {} chunks", subject.name, chunks.len());
        }
    }
}

#[test]
fn chunks_of_natural_text_are_not_much_smaller_than_asked() {
    for text in [ENGLISH.repeat(200), CHINESE.repeat(200), CODE.repeat(100)] {
        for subject in &*SUBJECTS {
            let config = ChunkConfig::new(Method::Tokens, Some(200), Some(0), None).unwrap();
            let chunks = split(&text, config, &subject.reader, &|| false).unwrap();
            let average = subject.real_tokens(&text) / chunks.len();
            let least = if subject.counter.is_exact() { 150 } else { 80 };
            assert!(average >= least, "{}: {average} tokens a chunk", subject.name);
        }
    }
}

#[test]
fn a_text_that_must_stay_whole_is_refused_above_the_window() {
    for subject in &*SUBJECTS {
        let text = "word ".repeat(subject.window * 3);
        match split(&text, ChunkConfig::WHOLE, &subject.reader, &|| false) {
            Err(SplitTextError::TooLong(reason)) => {
                assert!(reason.contains(&format!("reads at most {}", subject.window)), "{reason}");
                assert_eq!(reason.contains("about"), !subject.counter.is_exact(), "{reason}");
            }
            other => unreachable!("{}: {other:?}", subject.name),
        }
        let short = "word ".repeat(subject.window / 4);
        assert_eq!(split(&short, ChunkConfig::WHOLE, &subject.reader, &|| false).unwrap().len(), 1);
    }
}

#[test]
fn an_estimate_refuses_a_whole_text_only_where_the_provider_would_cut_it() {
    for subject in SUBJECTS.iter().filter(|subject| !subject.counter.is_exact()) {
        // The estimate is high: the model may read the text.
        let text = "狐 ".repeat(subject.window * 3 / 4);
        let estimate = conservative_token_estimate(text.trim());
        assert!(estimate > subject.window && estimate < 2 * subject.window);
        match split(&text, ChunkConfig::WHOLE, &subject.reader, &|| false) {
            Ok(chunks) => assert!(chunks.len() == 1 && !subject.name.starts_with("gemini")),
            Err(SplitTextError::TooLong(reason)) => {
                assert!(subject.name.starts_with("gemini"), "{}: {reason}", subject.name);
                assert!(reason.contains(&format!("about {estimate} tokens")), "{reason}");
                assert!(reason.contains(&format!("reads at most {}", subject.window)), "{reason}");
            }
            Err(SplitTextError::Stopped) => unreachable!(),
        }
    }
}

#[test]
fn the_estimate_is_at_least_half_of_the_real_tokens() {
    for text in texts() {
        let (estimate, real) = (conservative_token_estimate(&text), openai_tokens(&text));
        assert!(2 * estimate >= real, "{estimate} for {real}: {text:.80}");
    }
}
