//! Export and import of collections as newline-delimited JSON.

use serde_json::{Value, json};

use super::{BASE, add, found, path, search, three, with_notes};
use crate::support::{Answer, Server};
use reqwest::Method;

async fn import(server: &Server, name: &str, lines: impl Into<reqwest::Body>) -> Answer {
    let request = server.request(Method::POST, &format!("{BASE}/{name}/import"));
    Answer::of(request.header("content-type", "application/x-ndjson").body(lines)).await
}

#[tokio::test]
async fn an_exported_collection_is_imported_unchanged() {
    let server = with_notes().await;
    let many: Vec<_> = (0..200)
        .map(|i| json!({"id": format!("{i:03}"), "text": format!("text {i}"), "metadata": {"i": [i]}}))
        .collect();
    assert_eq!(add(&server, &json!({"documents": many})).await.status, 200);
    let export = server.get(&path("/export")).await;
    assert_eq!(export.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (lines.len(), &lines[0]["embeddery_collection"], &lines[201]),
        (202, &json!(2), &json!({"end": {"documents": 200}}))
    );

    *server.fake.last_request.lock().unwrap() = None;
    let imported = import(&server, "copy", export.text.clone()).await;
    assert_eq!(
        imported.json,
        json!({"documents": 200, "added": 200, "unchanged": 0, "removed": 0}),
        "{}",
        imported.text
    );
    assert!(
        server.fake.last_request.lock().unwrap().is_none(),
        "the imported vectors are not computed again"
    );
    let again = import(&server, "copy", export.text.clone()).await;
    assert_eq!(again.json["unchanged"], 200);
    let copy = server.get(&format!("{BASE}/copy/export")).await;
    assert_eq!(
        copy.text.lines().skip(1).collect::<Vec<_>>(),
        export.text.lines().skip(1).collect::<Vec<_>>()
    );
    let hit = server.post(&format!("{BASE}/copy/search"), &json!({"query": "text 77", "top_k": 1})).await;
    assert_eq!(found(&hit), ["077"]);
}

#[tokio::test]
async fn a_chunk_has_its_headings_in_every_response() {
    let server = with_notes().await;
    let text = "# Guide\n\n## Cleaning\n\nRinse the filter with warm water.\n\n# Prices\n\nTen each.";
    let chunking = json!({"method": "markdown", "size": 6, "overlap": 0, "unit": "words"});
    let body = json!({"documents": [{"id": "md", "text": text}], "chunking": chunking});
    assert_eq!(add(&server, &body).await.status, 200);
    let headings = async |path: &str| {
        let document = server.get(path).await.json;
        document["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|chunk| chunk["headings"].clone())
            .collect::<Vec<_>>()
    };
    let expected =
        [json!(["Guide"]), json!(["Guide", "Cleaning"]), json!(["Guide", "Cleaning"]), json!(["Prices"])];
    assert_eq!(headings(&path("/documents/md")).await, expected);
    let hit = search(&server, &json!({"query": "ten each", "mode": "text", "top_k": 1})).await.json;
    assert_eq!(hit["results"][0]["headings"], expected[3]);
    let export = server.get(&path("/export")).await.text;
    let copied = import(&server, "copy", export).await;
    assert_eq!(copied.status, 200, "{}", copied.text);
    assert_eq!(headings(&format!("{BASE}/copy/documents/md")).await, expected);
}

#[tokio::test]
async fn plain_lines_are_embedded() {
    let server = with_notes().await;
    let lines = "{\"id\": \"a\", \"text\": \"one\"}\r\n\n{\"text\": \"two\", \"metadata\": {\"n\": 2}}";
    assert_eq!(import(&server, "notes", lines).await.json["documents"], 2);
    assert_eq!(
        search(&server, &json!({"query": "one", "top_k": 1})).await.json["results"][0]["document_id"],
        "a"
    );
    let absent = import(&server, "absent", lines).await;
    assert_eq!((absent.status.as_u16(), absent.code()), (404, "not_found"));
}

#[tokio::test]
async fn an_id_that_comes_again_is_counted_once_and_listed() {
    let server = with_notes().await;
    // The first repetition is in the same write to the store, the second in a later one.
    let line = |id: &str, text: &str| format!("{{\"id\": \"{id}\", \"text\": \"{text}\"}}\n");
    let others: String =
        (0..100).map(|number| line(&format!("n{number}"), &format!("text {number}"))).collect();
    let lines = [line("a", "first"), line("a", "second"), others, line("a", "third")].concat();
    let imported =
        import(&server, "notes", format!("{lines}{{\"text\": \"same\"}}\n{{\"text\": \"same\"}}\n")).await;
    assert_eq!(imported.status, 200, "{}", imported.text);
    assert_eq!((&imported.json["documents"], &imported.json["replaced"]), (&json!(102), &json!(3)));
    let replacements = imported.json["replacements"].as_array().unwrap();
    let named: Vec<_> = replacements
        .iter()
        .map(|row| (row["line"].as_u64().unwrap(), row["replaces_line"].as_u64().unwrap()))
        .collect();
    assert_eq!(named, [(2, 1), (103, 2), (105, 104)]);
    assert_eq!(replacements[0]["id"], "a");
    assert_eq!(server.get(&path("/stats")).await.json["documents"], 102);
    assert_eq!(server.get(&path("/documents/a")).await.json["chunks"][0]["text"], "third");

    // The same with vectors: the footer of an export counts lines.
    let export = server.get(&path("/export")).await.text;
    let lines: Vec<&str> = export.lines().collect();
    let repeated =
        [&lines[..2], &lines[1..]].concat().join("\n").replace("{\"documents\":102}", "{\"documents\":103}");
    let copied = import(&server, "copy", repeated).await;
    assert_eq!(
        (copied.status.as_u16(), &copied.json["documents"], &copied.json["replaced"]),
        (200, &json!(102), &json!(1)),
        "{}",
        copied.text
    );
}

#[tokio::test]
async fn a_byte_order_mark_at_the_start_of_an_import_is_ignored() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let export = server.get(&path("/export")).await.text;
    let imported = import(&server, "copy", format!("\u{feff}{export}")).await;
    assert_eq!(
        (imported.status.as_u16(), &imported.json["documents"]),
        (200, &json!(3)),
        "{}",
        imported.text
    );
    let plain = import(&server, "copy", "\u{feff}{\"id\": \"a\", \"text\": \"one\"}").await;
    assert_eq!((plain.status.as_u16(), &plain.json["documents"]), (200, &json!(1)), "{}", plain.text);
}

#[tokio::test]
async fn an_imported_vector_of_zeros_is_refused_with_its_line() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let export = server.get(&path("/export")).await.text;
    let mut lines: Vec<String> = export.lines().map(str::to_owned).collect();
    let mut document: Value = serde_json::from_str(&lines[2]).unwrap();
    let vector = document["chunks"][0]["vector"].as_str().unwrap();
    let zeros: String = vector.chars().map(|digit| if digit == '=' { '=' } else { 'A' }).collect();
    document["chunks"][0]["vector"] = json!(zeros);
    lines[2] = document.to_string();
    let refused = import(&server, "copy", lines.join("\n")).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.message().starts_with("line 3: chunks[0].vector is all zeros"), "{}", refused.message());
}

#[tokio::test]
async fn the_error_for_an_invalid_file_has_the_line_and_the_stored_documents() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let export = server.get(&path("/export")).await.text;
    let lines: Vec<&str> = export.lines().collect();

    let incomplete = import(&server, "incomplete", lines[..3].join("\n")).await;
    assert_eq!((incomplete.status.as_u16(), incomplete.code()), (400, "invalid_json"));
    assert!(
        incomplete.message().contains("footer line is missing")
            && incomplete.message().contains("documents stored: 2"),
        "{}",
        incomplete.text
    );

    let wrong = export.replace("{\"documents\":3}", "{\"documents\":27}");
    let wrong = import(&server, "wrong", wrong).await;
    assert!(
        wrong.message().contains("states 27 documents, the body has 3; documents stored: 3"),
        "{}",
        wrong.text
    );

    let newer = export.replacen("\"embeddery_collection\":2", "\"embeddery_collection\":3", 1);
    let newer = import(&server, "newer", newer).await;
    assert!(newer.status == 400 && newer.message().contains("newer Embeddery"), "{}", newer.text);

    let other = export.replacen("test-space", "another-space", 1);
    let other = import(&server, "notes", other).await;
    assert_eq!((other.status.as_u16(), other.code()), (409, "space_mismatch"));
    assert_eq!(other.json["detail"]["collection_space"], "test-space");
    assert_eq!(other.json["detail"]["offered_space"], "another-space");

    for (line, word) in [
        ("nonsense", "line 2"),
        ("[1]", "line 2"),
        ("{\"text\": \"\"}", "blank"),
        ("{\"id\": \"a\", \"chunks\": [{}]}", "line 2"),
    ] {
        let answer = import(&server, "notes", format!("{{\"text\": \"fine\"}}\n{line}\n")).await;
        assert!(
            answer.status.is_client_error() && answer.message().contains(word),
            "{line}: {}",
            answer.text
        );
    }
}

/// The model of the imported collection returns vectors of another space than that of the file.
#[tokio::test]
async fn vectors_of_another_space_are_rejected_and_both_spaces_are_named() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let export = server.get(&path("/export")).await.text.replacen("test-space", "older-space", 1);
    assert_eq!(import(&server, "old", export).await.status, 200);
    for (path, body) in
        [("documents", json!({"documents": [{"text": "new"}]})), ("search", json!({"query": "new"}))]
    {
        let answer = server.post(&format!("{BASE}/old/{path}"), &body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (409, "space_mismatch"), "{}", answer.text);
        assert!(answer.message().contains("'older-space'") && answer.message().contains("'test-space'"));
    }
    let known = server.post(&format!("{BASE}/old/documents"), &three()).await;
    assert_eq!(
        (known.status.as_u16(), &known.json["unchanged"]),
        (200, &json!(3)),
        "stored documents are not embedded again"
    );
}

#[tokio::test]
async fn an_import_requires_the_content_type_of_ndjson() {
    let server = with_notes().await;
    let request =
        server.request(Method::POST, &path("/import")).header("content-type", "application/json").body("{}");
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (415, "unsupported_media_type"));
}

#[tokio::test]
async fn lines_without_vectors_are_split_by_the_default() {
    let server = with_notes().await;
    let line = json!({"id": "long", "text": "word ".repeat(45) + "end"}).to_string();
    let imported = import(&server, "notes", line).await;
    assert_eq!(
        (imported.status.as_u16(), &imported.json["documents"]),
        (200, &json!(1)),
        "{}",
        imported.text
    );
    assert!(imported.json["added"].as_u64().unwrap() >= 5, "the model reads ten words: {}", imported.text);
    let document = server.get(&path("/documents/long")).await.json;
    assert!(
        document["chunks"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap().ends_with("end")
    );
}

#[tokio::test]
async fn a_line_beyond_the_limit_is_rejected() {
    let server = Server::with(|settings| settings.body_limit = 1000).await;
    assert_eq!(server.post(BASE, &json!({"name": "notes"})).await.status, 201);
    let short: String = (0..100).map(|i| format!("{{\"id\": \"{i}\", \"text\": \"short\"}}\n")).collect();
    assert!(short.len() > 1000);
    assert_eq!(import(&server, "notes", short).await.json["documents"], 100, "the body may exceed the limit");
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(5000));
    assert_eq!(import(&server, "notes", long).await.status, 413);
}
