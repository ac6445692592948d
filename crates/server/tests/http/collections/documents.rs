//! Documents: add, search, page, delete.

use serde_json::json;

use super::{add, delete, found, path, search, three, with_notes};
use crate::support::{Server, vector};

#[tokio::test]
async fn documents_are_found_by_text_by_vector_and_by_words() {
    let server = with_notes().await;
    let added = add(&server, &three()).await;
    assert_eq!(
        added.json,
        json!({
            "added": 3, "unchanged": 0, "removed": 0,
            "documents": [{"id": "fox", "chunks": 1}, {"id": "hen", "chunks": 1}, {"id": "table", "chunks": 1}],
        })
    );
    let by_text = search(&server, &json!({"query": "A hen on the roof", "top_k": 2})).await;
    assert_eq!((by_text.status.as_u16(), found(&by_text).len(), found(&by_text)[0]), (200, 2, "hen"));
    let hit = &by_text.json["results"][0];
    assert!((hit["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{hit}");
    assert_eq!(
        (&hit["text"], &hit["metadata"]["legs"], &hit["bytes"]),
        (&json!("A hen on the roof"), &json!(2), &json!([0, 17]))
    );
    assert_eq!(by_text.header("x-embeddings-space"), "test-space");

    for scale in [1e-38, 1e-30, 1e38] {
        let scaled: Vec<f64> =
            vector("The quick brown fox", true).into_iter().map(|x| f64::from(x) * scale).collect();
        let found = search(&server, &json!({"vector": scaled, "top_k": 1})).await;
        let score = found.json["results"][0]["score"].as_f64().unwrap_or_default();
        assert!((score - 1.0).abs() < 1e-4, "{scale}: {}", found.text);
    }
    let by_vector = json!({"vector": vector("The quick brown fox", true), "top_k": 1, "with_text": false, "space": "test-space"});
    let by_vector = search(&server, &by_vector).await;
    assert_eq!(found(&by_vector), ["fox"]);
    assert!(by_vector.json["results"][0].get("text").is_none());

    let by_words =
        search(&server, &json!({"query": "oak FOX?", "mode": "text", "filter": {"kind": "thing"}})).await;
    assert_eq!(found(&by_words), ["table"]);
    let both = search(
        &server,
        &json!({"query": "A table of oak", "mode": "hybrid", "filter": {"legs": {"$gt": 2}}}),
    )
    .await;
    assert_eq!(found(&both), ["table", "fox"]);
    for (result, kind, cosine, words) in
        [(&by_text, "cosine", true, false), (&by_words, "bm25", false, true), (&both, "rrf", true, true)]
    {
        let hit = &result.json["results"][0];
        assert_eq!(hit["score_kind"], kind);
        assert_eq!((hit["cosine"].is_number(), hit["text_rank"].is_number()), (cosine, words), "{hit}");
        assert_eq!(hit["text_score"].is_number(), words, "{hit}");
    }
    let second = &both.json["results"][1];
    assert_eq!(
        (&second["text_rank"], &second["text_score"]),
        (&json!(null), &json!(null)),
        "no word is in it"
    );
    assert!(second["cosine"].is_number(), "{second}");
    assert_eq!(
        found(&search(&server, &json!({"query": "x", "filter": {"absent": 1}})).await),
        Vec::<&str>::new()
    );
}

#[tokio::test]
async fn unchanged_documents_are_not_embedded_again() {
    let server = with_notes().await;
    add(&server, &three()).await;
    *server.fake.last_request.lock().unwrap() = None;
    let again = add(&server, &three()).await;
    assert_eq!((&again.json["added"], &again.json["unchanged"]), (&json!(0), &json!(3)));
    assert!(server.fake.last_request.lock().unwrap().is_none(), "the model was not called");

    let changed = json!({"documents": [{"id": "fox", "text": "The slow brown fox"}, {"id": "hen", "text": "A hen on the roof"}]});
    let changed = add(&server, &changed).await.json;
    assert_eq!(
        (&changed["added"], &changed["unchanged"], &changed["removed"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(server.fake.last().inputs.len(), 1, "only the changed document was embedded");
    let fox = server.get(&path("/documents/fox")).await.json;
    assert_eq!((&fox["chunks"][0]["text"], &fox["metadata"]), (&json!("The slow brown fox"), &json!({})));
}

#[tokio::test]
async fn chunks_have_offsets_and_unchanged_chunks_are_kept() {
    let server = with_notes().await;
    let text = "Füchse laufen. Hunde schlafen lange. Hühner gackern.";
    let body = |text: &str| {
        json!({
            "documents": [{"id": "d", "text": text}],
            "chunking": {"method": "sentences", "size": 4, "overlap": 0, "unit": "words"},
        })
    };
    assert_eq!(add(&server, &body(text)).await.json["added"], 3);
    let document = server.get(&path("/documents/d")).await.json;
    let second = &document["chunks"][1];
    assert_eq!(second["text"], "Hunde schlafen lange.");
    assert_eq!((&second["bytes"], &second["characters"]), (&json!([16, 37]), &json!([15, 36])));
    let longer = add(&server, &body(&format!("Neu ist das. {text}"))).await.json;
    assert_eq!(
        (&longer["added"], &longer["unchanged"], &longer["removed"]),
        (&json!(1), &json!(3), &json!(0))
    );

    let tokens = json!({
        "documents": [{"id": "t", "text": "one two three four five six seven eight nine ten eleven twelve"}],
        "chunking": {"method": "tokens", "size": 500},
    });
    let answer = add(&server, &tokens).await.json;
    assert_eq!(
        answer["documents"][0]["chunks"], 2,
        "the model reads twelve tokens, two of them special: {answer}"
    );
}

/// The texts of a document's chunks.
async fn chunk_texts(server: &Server, id: &str) -> Vec<String> {
    let document = server.get(&path(&format!("/documents/{id}"))).await.json;
    let chunks = document["chunks"].as_array().unwrap().iter();
    chunks.map(|chunk| chunk["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_whole_text_is_read_by_the_model() {
    let server = with_notes().await;
    let words: Vec<String> = (0..60).map(|n| format!("word{n}")).collect();
    let text = words.join(" ");
    for chunking in [
        json!(null),
        json!({"method": "words", "size": 50}),
        json!({"method": "fixed_size", "size": 5000}),
        json!({"method": "paragraphs", "unit": "characters", "size": 5000}),
    ] {
        let mut body = json!({"documents": [{"id": "long", "text": text}]});
        if !chunking.is_null() {
            body["chunking"] = chunking.clone();
        }
        let added = add(&server, &body).await;
        assert_eq!((added.status.as_u16(), added.json.get("truncated")), (200, None), "{chunking}");
        assert_eq!(server.fake.last().truncate, Some(embeddery_core::Truncate::None));
        let chunks = chunk_texts(&server, "long").await;
        assert!(chunks.iter().all(|chunk| chunk.split_whitespace().count() <= 10), "{chunking}: {chunks:?}");
        assert!(words.iter().all(|word| chunks.iter().any(|chunk| chunk.contains(word))), "{chunking}");
        // The last word is searchable.
        let hits = search(&server, &json!({"query": chunks.last().unwrap(), "top_k": 1})).await;
        assert!(hits.json["results"][0]["text"].as_str().unwrap().contains("word59"), "{chunking}");
        assert_eq!(delete(&server, &path("/documents/long"), None).await.status, 204);
    }
}

#[tokio::test]
async fn a_document_that_must_be_one_chunk_is_refused_above_the_limit_before_anything_is_paid() {
    let server = with_notes().await;
    let whole = json!({"method": "none"});
    let ten = "a b c d e f g h i j";
    let fits = add(&server, &json!({"documents": [{"id": "ten", "text": ten}], "chunking": whole})).await;
    assert_eq!(fits.json["documents"], json!([{"id": "ten", "chunks": 1}]));
    *server.fake.last_request.lock().unwrap() = None;
    let documents = json!([{"id": "short", "text": "a b"}, {"id": "eleven", "text": format!("{ten} k")}]);
    let refused = add(&server, &json!({"documents": documents, "chunking": whole})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "input_too_long"));
    for part in ["documents[1]", "'eleven'", "11 tokens", "at most 10"] {
        assert!(refused.message().contains(part), "{part}: {}", refused.text);
    }
    assert!(server.fake.last_request.lock().unwrap().is_none(), "the model was not called");
    assert_eq!(server.get(&path("/documents/short")).await.status, 404, "nothing was stored");
}

#[tokio::test]
async fn an_error_names_the_document_as_the_request_does() {
    let server = with_notes().await;
    let documents = json!([{"text": "a"}, {"text": "a"}, {"text": "a b c d e f g h i j k"}]);
    let body = json!({"documents": documents, "chunking": {"method": "none"}});
    let too_long = add(&server, &body).await;
    assert_eq!((too_long.status.as_u16(), too_long.code()), (400, "input_too_long"));
    assert!(too_long.message().starts_with("documents[2]: "), "{}", too_long.text);
    assert_eq!(too_long.json["error"]["param"], "documents[2].text");

    // The third chunk of the third document, behind a full call.
    *server.fake.refused.lock().unwrap() = Some("poison");
    let many: String = (0..300).map(|n| format!("w{n} ")).collect();
    let documents = json!([
        {"id": "many", "text": many},
        {"text": "a"},
        {"text": "a"},
        {"id": "bad", "text": "one two three poison five"},
    ]);
    let chunking = json!({"method": "words", "size": 1, "overlap": 0});
    let refused = add(&server, &json!({"documents": documents, "chunking": chunking})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_value"), "{}", refused.text);
    assert_eq!(
        refused.message(),
        "documents[3]: document 'bad', chunk 3: the vendor refuses the text",
        "{}",
        refused.text
    );
    assert_eq!(refused.json["error"]["param"], "documents[3].text");
    assert!(!refused.text.contains("input["), "{}", refused.text);
}

#[tokio::test]
async fn a_model_that_is_not_loaded_in_time_does_not_hold_the_request() {
    let server = Server::with(|settings| settings.request_timeout = std::time::Duration::from_secs(1)).await;
    let made =
        server.post(super::BASE, &json!({"name": "notes", "embedding_model": "test/never-loaded"})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let late = add(&server, &three()).await;
    assert_eq!((late.status.as_u16(), late.code()), (504, "timeout"), "{}", late.text);
}

/// Texts whose split took quadratic time.
#[tokio::test]
async fn texts_that_are_slow_to_split_are_stored() {
    let server = with_notes().await;
    let sentences = json!({"method": "sentences", "size": 8, "overlap": 4});
    for (name, text, chunking) in [
        ("line breaks", format!("a{}b", "\n".repeat(40_000)), sentences),
        ("rules", "----\n".repeat(1000), json!({"method": "recursive"})),
        ("one letter", "x".repeat(50_000), json!({"method": "recursive"})),
        ("full stop", format!("a.{}", ")".repeat(20_000)), json!({"method": "paragraphs"})),
    ] {
        let body = json!({"documents": [{"id": "slow", "text": text}], "chunking": chunking});
        let added = add(&server, &body).await;
        assert_eq!(added.status, 200, "{name}: {}", added.text);
        let chunks = chunk_texts(&server, "slow").await;
        assert!(text.starts_with(&chunks[0]) && text.trim_end().ends_with(chunks.last().unwrap()), "{name}");
    }
}

#[tokio::test]
async fn a_query_that_is_not_read_whole_is_counted_in_a_header() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let long = search(&server, &json!({"query": "word ".repeat(30)})).await;
    assert_eq!((long.status.as_u16(), long.header("x-embeddings-truncated")), (200, "1"));
    let short = search(&server, &json!({"query": "word"})).await;
    assert!(short.headers.get("x-embeddings-truncated").is_none());
}

#[tokio::test]
async fn a_byte_order_mark_is_not_part_of_a_chunk() {
    let server = with_notes().await;
    let body = json!({
        "documents": [{"id": "bom", "text": "\u{FEFF}# Title\n\nSome words."}],
        "chunking": {"method": "markdown"},
    });
    assert_eq!(add(&server, &body).await.status, 200);
    let chunk = &server.get(&path("/documents/bom")).await.json["chunks"][0];
    assert_eq!((&chunk["text"], &chunk["headings"]), (&json!("# Title\n\nSome words."), &json!(["Title"])));
    assert_eq!((&chunk["bytes"][0], &chunk["characters"][0]), (&json!(3), &json!(1)));
    let blank = add(&server, &json!({"documents": [{"text": "\u{FEFF} \n"}]})).await;
    assert_eq!((blank.status.as_u16(), blank.code()), (400, "invalid_value"));
}

#[tokio::test]
async fn equal_documents_without_an_id_are_one_document_and_the_second_is_told_so() {
    let server = with_notes().await;
    let text = |text: &str| json!({"text": text, "metadata": {"a": 1}});
    let body = json!({"documents": [text("one"), text("two"), text("one"), text("one")]});
    let added = add(&server, &body).await;
    assert_eq!(added.status, 200, "{}", added.text);
    assert_eq!((&added.json["added"], &added.json["unchanged"]), (&json!(2), &json!(0)));
    let documents = added.json["documents"].as_array().unwrap();
    let duplicates: Vec<_> = documents.iter().map(|document| document["duplicate_of"].as_u64()).collect();
    assert_eq!(duplicates, [None, None, Some(0), Some(0)]);
    assert_eq!((&documents[2]["id"], &documents[2]["chunks"]), (&documents[0]["id"], &json!(1)));
    assert_ne!(documents[0]["id"], documents[1]["id"]);
    assert_eq!(server.get(&path("/stats")).await.json["documents"], 2);
    let again = add(&server, &body).await;
    assert_eq!((&again.json["added"], &again.json["unchanged"]), (&json!(0), &json!(2)));
    for (second, message) in [
        (json!({"text": "one"}), "documents[1] has the text of documents[0], no id, and other metadata"),
        (json!({"id": documents[0]["id"], "text": "other"}), "documents[1] has the id of documents[0]"),
    ] {
        let refused = add(&server, &json!({"documents": [text("one"), second]})).await;
        assert_eq!(
            (refused.status.as_u16(), refused.json["error"]["param"].as_str()),
            (400, Some("documents[1]"))
        );
        assert!(refused.message().contains(message), "{}", refused.text);
    }
    // The id is that of the second text, which the first document does not have.
    let taken = json!({"documents": [{"id": documents[0]["id"], "text": "other"}, {"text": "one"}]});
    let refused = add(&server, &taken).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(
        refused.message().contains("has no id, and documents[0], whose text differs"),
        "{}",
        refused.text
    );
    let same_id = json!({"documents": [{"id": "x", "text": "one"}, {"id": "x", "text": "one"}]});
    let refused = add(&server, &same_id).await;
    assert!(refused.message().contains("has the id of documents[0]"), "{}", refused.text);
}

#[tokio::test]
async fn documents_are_paged_and_deleted() {
    let server = with_notes().await;
    let documents: Vec<_> = (0..7)
        .map(|i| json!({"id": format!("a/{i}"), "text": format!("text {i}"), "metadata": {"i": i}}))
        .collect();
    assert_eq!(add(&server, &json!({"documents": documents})).await.status, 200);
    let first = server.get(&path("/documents?limit=4")).await.json;
    assert_eq!((first["documents"].as_array().unwrap().len(), &first["next"]), (4, &json!("a/3")));
    let second = server.get(&path("/documents?limit=4&after=a%2F3")).await.json;
    assert_eq!((second["documents"].as_array().unwrap().len(), second.get("next")), (3, None));

    assert_eq!(delete(&server, &path("/documents/a%2F1"), None).await.status, 204);
    let gone = delete(&server, &path("/documents/a%2F1"), None).await;
    assert_eq!((gone.status.as_u16(), gone.code()), (404, "not_found"));
    let by_filter = delete(&server, &path("/documents"), Some(json!({"filter": {"i": {"$gte": 4}}}))).await;
    assert_eq!(by_filter.json, json!({"deleted": 3}));
    let by_ids = delete(&server, &path("/documents"), Some(json!({"ids": ["a/0", "absent"]}))).await;
    assert_eq!(by_ids.json, json!({"deleted": 1}));
    assert_eq!(server.get(&path("/stats")).await.json["count"], 2);
}

#[tokio::test]
async fn a_document_without_an_id_gets_one_from_its_text() {
    let server = with_notes().await;
    let body = json!({"documents": [{"text": "some text"}]});
    let first = add(&server, &body).await.json;
    let second = add(&server, &body).await.json;
    assert_eq!(first["documents"][0]["id"], second["documents"][0]["id"]);
    assert_eq!((&second["added"], &second["unchanged"]), (&json!(0), &json!(1)));
}
