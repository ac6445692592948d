//! Numbers of metadata through the API: exact in filters, kept to the bit in every way out, and refused by name where
//! their value would be lost.

use reqwest::Method;
use serde_json::{Value, json};

use super::{BASE, delete, found, path, search, with_notes};
use crate::support::{Answer, Server};

/// Metadata as it is written by a client, with numbers that JSON parsers often round.
const METADATA: &str = r#"{"floats":[0.1,0.30000000000000004,1e+16,1e+300,1.7976931348623157e+308,5e-324,2.225073858507201e-308,-0.0,1.0],"signed":-9223372036854775808,"snowflake":1234567890123456789,"unsigned":18446744073709551615}"#;

async fn import(server: &Server, name: &str, lines: String) -> Answer {
    let request = server.request(Method::POST, &format!("{BASE}/{name}/import"));
    Answer::of(request.header("content-type", "application/x-ndjson").body(lines)).await
}

#[tokio::test]
async fn numbers_are_kept_to_the_bit_in_every_way_out() {
    let server = with_notes().await;
    let body = format!(r#"{{"documents": [{{"id": "d", "text": "x", "metadata": {METADATA}}}]}}"#);
    let added = server.post_bytes(&path("/documents"), body.into_bytes()).await;
    assert_eq!(added.status, 200, "{}", added.text);
    let export = server.get(&path("/export")).await.text;
    assert_eq!(import(&server, "copy", export.clone()).await.status, 200);
    let texts = [
        server.get(&path("/documents/d")).await.text,
        server.get(&path("/documents")).await.text,
        search(&server, &json!({"query": "x"})).await.text,
        server.get(&format!("{BASE}/copy/export")).await.text,
        export,
    ];
    for text in texts {
        assert!(text.contains(METADATA), "{text}");
    }
    let line = format!(r#"{{"id": "plain", "text": "y", "metadata": {METADATA}}}"#);
    assert_eq!(import(&server, "copy", line).await.status, 200);
    assert!(server.get(&format!("{BASE}/copy/documents/plain")).await.text.contains(METADATA));

    let created = format!(r#"{{"name": "other", "metadata": {METADATA}}}"#);
    let created = server.post_bytes(BASE, created.into_bytes()).await;
    assert!(created.status == 201 && created.text.contains(METADATA), "{}", created.text);
    let export = server.get(&format!("{BASE}/other/export")).await.text;
    assert!(import(&server, "third", export).await.status == 200);
    assert!(server.get(&format!("{BASE}/third")).await.text.contains(METADATA));
}

#[tokio::test]
async fn neighbours_of_an_integer_are_neither_found_nor_deleted() {
    let server = with_notes().await;
    for (first, field) in [("12345678901234567", "snowflake"), ("184467440737095516", "unsigned")] {
        let document = |last: u32| {
            format!(
                r#"{{"id": "{field}{last}", "text": "t {field} {last}", "metadata": {{"{field}": {first}{last}}}}}"#
            )
        };
        let body = format!(r#"{{"documents": [{}]}}"#, (10..16).map(document).collect::<Vec<_>>().join(","));
        assert_eq!(server.post_bytes(&path("/documents"), body.into_bytes()).await.status, 200);
        let exactly = format!(r#"{{"query": "x", "filter": {{"{field}": {first}13}}}}"#);
        let answer = server.post_bytes(&path("/search"), exactly.into_bytes()).await;
        assert_eq!(found(&answer), [format!("{field}13")]);
        let filter: Value =
            serde_json::from_str(&format!(r#"{{"{field}": {{"$gt": {first}12, "$lt": {first}14}}}}"#))
                .unwrap();
        let deleted = delete(&server, &path("/documents"), Some(json!({"filter": filter}))).await;
        assert_eq!(deleted.json, json!({"deleted": 1}), "{}", deleted.text);
        assert_eq!(server.get(&path(&format!("/documents/{field}12"))).await.status, 200);
        assert_eq!(server.get(&path(&format!("/documents/{field}13"))).await.status, 404);
    }
}

#[tokio::test]
async fn a_number_whose_value_would_be_lost_is_refused_by_name() {
    let server = with_notes().await;
    let calls = server.fake.calls();
    for (number, word) in [
        ("18446744073709551616", "beyond 64 bits"),
        ("-9223372036854775809", "beyond 64 bits"),
        ("123456789012345678901234567890", "beyond 64 bits"),
        ("1e400", "floating-point"),
        ("-1.8e308", "floating-point"),
    ] {
        let metadata = format!(r#"{{"a": {{"b": [0, {number}]}}}}"#);
        let document = format!(r#"{{"text": "x", "metadata": {metadata}}}"#);
        let cases = [
            (
                path("/documents"),
                format!(r#"{{"documents": [{{"text": "y"}}, {document}]}}"#),
                "documents[1].metadata.a.b[1]",
            ),
            (
                "/api/v1/embeddings/jobs".to_owned(),
                format!(r#"{{"collection": "c", "documents": [{document}]}}"#),
                "documents[0].metadata.a.b[1]",
            ),
            (BASE.to_owned(), format!(r#"{{"name": "new", "metadata": {metadata}}}"#), "metadata.a.b[1]"),
            (
                path("/search"),
                format!(r#"{{"query": "x", "filter": {{"a": {{"$in": [{number}]}}}}}}"#),
                "filter.a.$in[0]",
            ),
        ];
        for (path, body, param) in cases {
            let answer = server.post_bytes(&path, body.into_bytes()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.json["error"]["param"].as_str()),
                (400, Some(param)),
                "{path}: {}",
                answer.text
            );
            let message = answer.message();
            assert!(
                message.contains(number) && message.contains(word) && message.contains("as a string"),
                "{message}"
            );
        }
        let line = import(&server, "notes", format!("{{\"text\": \"fine\"}}\n{document}\n")).await;
        assert!(
            line.status == 400 && line.message().starts_with("line 2: metadata.a.b[1] is "),
            "{}",
            line.text
        );
        // Of duplicate keys the last one counts; its number is checked, too.
        let twice = format!(r#"{{"documents": [{{"text": "x", "text": "y", "metadata": {metadata}}}]}}"#);
        let answer = server.post_bytes(&path("/documents"), twice.into_bytes()).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let request = server.request(Method::DELETE, &path("/documents"));
        let body = format!(r#"{{"filter": {{"a": {number}}}}}"#);
        let answer = Answer::of(request.header("content-type", "application/json").body(body)).await;
        assert!(answer.status == 400 && answer.message().contains("filter.a is"), "{}", answer.text);
    }
    assert_eq!(server.fake.calls(), calls, "nothing is embedded");
}

#[tokio::test]
async fn every_way_in_refuses_what_cannot_be_stored() {
    let server = with_notes().await;
    super::add(&server, &super::three()).await;
    let export = server.get(&path("/export")).await.text;
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls = server.fake.calls();
    let changed = |line: usize, change: &dyn Fn(&mut Value)| {
        let mut lines = lines.clone();
        change(&mut lines[line]);
        lines.iter().map(|line| format!("{line}\n")).collect::<String>()
    };
    type Case<'a> = (&'a dyn Fn(&mut Value), usize, &'a str);
    let cases: [Case<'_>; 16] = [
        (&|line| line["id"] = "a\0".into(), 2, "line 3: id has a control character"),
        (&|line| line["metadata"]["x"] = "m".repeat(70_000).into(), 2, "line 3: metadata has 70"),
        (&|line| line["metadata"]["x"] = "\0".into(), 2, "line 3: metadata.x has a NUL"),
        (&|line| line["chunks"] = json!([]), 2, "line 3: chunks is empty"),
        (&|line| line["chunks"][0]["text"] = " \n".into(), 2, "line 3: chunks[0]: text is blank"),
        (&|line| line["chunks"][0]["text"] = "a\0".into(), 2, "line 3: chunks[0]: text has a NUL"),
        (
            &|line| line["chunks"][0]["headings"] = json!(["h", "\0"]),
            2,
            "line 3: chunks[0].headings[1] has a NUL",
        ),
        (&|line| line["chunks"][0]["bytes"] = json!([0, 1_u64 << 63]), 2, "line 3: chunks[0].bytes is [0, "),
        (
            &|line| line["chunks"][0]["characters"] = json!([5, 4]),
            2,
            "line 3: chunks[0].characters is [5, 4]",
        ),
        (&|line| line["chunks"][0]["vector"] = "AAAA".into(), 2, "line 3: chunks[0]: vector is not base64"),
        (
            &|line| line["chunks"][0]["vector"] = "AACAPw==".into(),
            2,
            "line 3: chunks[0].vector has 1 numbers",
        ),
        (
            &|line| line["chunks"][0]["vector"] = "AACAfw==".into(),
            2,
            "line 3: chunks[0].vector has 1 numbers",
        ),
        (&|line| line["space"] = "s".repeat(1 << 20).into(), 0, "line 1: space is not 1 to 1024 bytes"),
        (&|line| line["provider"] = "a\r\nb".into(), 0, "line 1: provider is not"),
        (&|line| line["dimensions"] = 0.into(), 0, "line 1: dimensions is 0"),
        (&|line| line["metadata"]["x"] = "m".repeat(70_000).into(), 0, "line 1: metadata has 70"),
    ];
    for (change, line, message) in cases {
        let answer = import(&server, "copy", changed(line, change)).await;
        assert_eq!(answer.status, 400, "{message}: {}", answer.text);
        assert!(answer.message().starts_with(message), "'{message}' does not begin: {}", answer.message());
        let _ = delete(&server, &format!("{BASE}/copy"), None).await;
    }
    let path = import(&server, "copy", changed(0, &|line| line["model"] = "/etc".into())).await;
    assert_eq!((path.status.as_u16(), path.code()), (404, "model_not_found"), "{}", path.text);
    assert_eq!(server.get(&format!("{BASE}/copy")).await.status, 404);
    assert_eq!(server.fake.calls(), calls, "nothing is embedded");
}
