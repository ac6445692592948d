//! What people write about providers elsewhere, and what becomes of it.

use std::num::NonZeroUsize;

use super::{
    super::{Config, load::parse_file, tests_support::resolved},
    *,
};

fn of(config: &Config, kind: ProviderKind) -> &Upstream {
    config.upstreams.vendors.iter().find(|upstream| upstream.kind == kind).unwrap()
}

fn problems(text: &str, variables: &[(&str, &str)]) -> String {
    resolved(text, variables).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn every_provider_is_there_with_a_key_or_without() {
    let config = resolved("", &[("OPENAI_API_KEY", "a, b"), ("COHERE_API_KEY", "")]).unwrap();
    let keys: Vec<_> =
        config.upstreams.vendors.iter().map(|v| (v.kind.as_str(), v.access.keys.len())).collect();
    assert_eq!(
        keys,
        [("openai", 2), ("cohere", 0), ("google", 0), ("mistral", 0), ("voyage", 0), ("local_api", 0)]
    );
    assert_eq!(of(&config, ProviderKind::Voyage).access.key_setting, "VOYAGE_API_KEY");
    assert!(config.notices.is_empty(), "{:?}", config.notices);
}

#[test]
fn a_variable_beats_the_file() {
    let text = r#"
providers:
  openai: {base_url: "https://file.example/v1", api_key: from-file, headers: {OpenAI-Project: p}}
  google: {api_keys: [k1, k2]}
"#;
    let config = resolved(text, &[("OPENAI_BASE_URL", "https://variable.example/v1")]).unwrap();
    let openai = &of(&config, ProviderKind::OpenAi).access;
    assert_eq!(openai.url.as_ref().unwrap().to_string(), "https://variable.example/v1");
    assert_eq!((openai.keys.len(), openai.headers.len()), (1, 1));
    assert_eq!(of(&config, ProviderKind::Google).access.keys.len(), 2);
    let old = resolved("", &[("OPENAI_API_BASE_URL", "https://old.example/v1")]).unwrap();
    assert!(of(&old, ProviderKind::OpenAi).access.url.is_some());
}

#[test]
fn what_is_no_address_no_dialect_no_key_stops_the_start_by_name() {
    assert!(
        problems("", &[("OPENAI_BASE_URL", "api.openai.com")])
            .contains("OPENAI_BASE_URL: 'api.openai.com' is not a URL")
    );
    let text = "providers: {mistral: {base_url: 'ftp://x'}}";
    assert!(problems(text, &[]).contains("providers.mistral.base_url: 'ftp://x' must begin with"));
    let model =
        |rest: &str| format!("models:\n  a: {{provider: local_api, model_name_or_path: m, {rest}}}\n");
    assert!(problems(&model("api_url: 'no url'"), &[]).contains("models.a.api_url: "));
    assert!(
        problems(&model("api_dialect: olama"), &[])
            .contains("models.a.api_dialect: 'olama' is not a dialect; write openai, ollama")
    );
    assert!(
        problems(&model("api_dialect: azure"), &[])
            .contains("models.a: api_dialect: 'azure' is not a dialect of local_api")
    );
    assert!(
        problems(&model("api_url: 'http://x', base_url: 'http://x'"), &[])
            .contains("both api_url and base_url")
    );
    assert!(problems(&model("prompts: {qeury: x}"), &[]).contains("models.a.prompts: 'qeury' is no purpose"));
    let secret = "sk-secret\u{7f}";
    let shown = problems("", &[("VOYAGE_API_KEY", secret)]);
    assert!(shown.contains("VOYAGE_API_KEY: ") && !shown.contains("sk-secret"), "{shown}");
    assert!(problems("outbound: {proxy: '::'}", &[]).contains("outbound: the proxy's URL"));
    assert!(
        problems("outbound: {ca_file: /no/such.pem}", &[])
            .contains("outbound.ca_file: /no/such.pem cannot be read")
    );
    assert!(problems("", &[("EMBEDDINGS_CA_FILE", "/no/such.pem")]).contains("EMBEDDINGS_CA_FILE: "));
    assert!(problems("providers: {opnai: {}}", &[]).contains("'openai'"));
    assert!(problems("providers: {openai: {base_ulr: x}}", &[]).contains("'base_url'"));
}

#[test]
fn the_catalogue_is_overridden_and_watched() {
    let text = "providers: {openai: {limits: {items: 7}, models: {mine: {dimensions: 8, price: 0.5}}}}";
    let config = resolved(text, &[]).unwrap();
    assert_eq!(config.upstreams.catalogue.price(ProviderKind::OpenAi, "mine"), Some(0.5));
    assert_eq!(config.upstreams.catalogue.vendor_of("mine"), Some(ProviderKind::OpenAi));
    let text = "providers: {cohere: {models: {embed-x: {price: 100}}}}";
    assert!(problems(text, &[]).contains("providers.cohere.models.embed-x.price: 100 dollars"));
}

#[test]
fn a_models_own_settings_are_kept_with_it() {
    let text = r#"
models:
  near: {provider: local_api, model_name_or_path: nomic-embed-text, api_url: "http://localhost:11434/api/embeddings"}
  other: {provider: local_api, model_name_or_path: nomic-embed-text, api_url: "http://other:11434", dimensions: 768, matryoshka: true}
  small: {provider: openai, model_name_or_path: text-embedding-3-small}
  alias: {provider: openai, model_name_or_path: text-embedding-3-small}
"#;
    let config = resolved(text, &[]).unwrap();
    let near = of(&config, ProviderKind::LocalApi);
    let names: Vec<_> = config.models.iter().map(|model| model.model.to_string()).collect();
    // Two servers with the same model are two models; two names of one model are not.
    assert_eq!(
        names,
        ["nomic-embed-text", "nomic-embed-text@other", "text-embedding-3-small", "text-embedding-3-small"]
    );
    assert_eq!(near.models.len(), 2);
    let other = &near.models[&config.models[1].model];
    assert_eq!((other.dimensions, other.matryoshka), (NonZeroUsize::new(768), Some(true)));
    assert_eq!(other.endpoint.url.as_ref().unwrap().to_string(), "http://other:11434/");
    assert!(of(&config, ProviderKind::OpenAi).models.is_empty());
    assert!(config.notices.is_empty(), "{:?}", config.notices);
}

#[test]
fn secrets_show_nowhere() {
    let text =
        "models: {a: {provider: openai, model_name_or_path: m, api_key: sk-hidden, headers: {X: sk-hidden}}}";
    let file = parse_file(text, "t").unwrap();
    assert!(!format!("{file:?}").contains("sk-hidden"));
    let config = resolved(text, &[]).unwrap();
    assert!(!format!("{:?}", of(&config, ProviderKind::OpenAi).models).contains("sk-hidden"));
}

#[test]
fn the_replaced_services_list_of_providers_is_read_past() {
    let config = resolved("providers: [{name: openai, priority: 1}]", &[]).unwrap();
    assert!(config.notices[0].starts_with("'providers' has no effect"), "{:?}", config.notices);
}
