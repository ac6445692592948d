//! Tests with real client libraries: openai, LangChain with its defaults, LiteLLM.

use std::{collections::BTreeSet, path::Path, process::Command};

use embeddery_test_support::vendors::VendorApi;

use crate::{gateway::Gateway, support::KEY};

#[tokio::test(flavor = "multi_thread")]
async fn openai_langchain_and_litellm_work_unchanged() {
    let gateway = Gateway::start().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(".cache/venv/bin/python");
    assert!(python.is_file(), "{} is missing; `make test` creates it", python.display());
    let mut clients = Command::new(python);
    clients.arg(root.join("tests/gateway_clients.py")).args([&gateway.server.url, KEY]);
    let output = tokio::task::spawn_blocking(move || clients.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = gateway.vendors.requests();
    let of = |api| asked.iter().filter(move |request| request.api == api);
    let voyage: BTreeSet<_> = of(VendorApi::Voyage).flat_map(|seen| seen.texts.clone()).collect();
    let expected = ["der dritte Text", "the first text", "the second text, somewhat longer"];
    assert_eq!(
        voyage.iter().map(String::as_str).collect::<Vec<_>>(),
        expected,
        "token ids are decoded to the texts"
    );
    assert!(
        of(VendorApi::OpenAi).any(|seen| seen.texts.iter().all(|text| text.starts_with("tokens "))),
        "token ids are sent unchanged to OpenAI"
    );
}
