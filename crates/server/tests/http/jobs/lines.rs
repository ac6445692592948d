//! Jobs submitted as newline-delimited JSON.

use axum::body::Bytes;
use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::json;

use super::{JOBS, id_of};
use crate::support::{Answer, Server};

#[tokio::test]
async fn lines_become_documents_in_their_order() {
    let server = Server::start().await;
    let lines = (0..700).map(|at| format!("{{\"id\": \"d{at}\", \"text\": \"text {at}\"}}\r\n"));
    let query = "collection=notes&priority=high&method=words&size=50&overlap=5";
    let answer = server.submit_lines(query, lines.collect::<String>()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!((&answer.json["documents"]["total"], &answer.json["priority"]), (&json!(700), &json!("high")));
    assert_eq!(
        answer.json["chunking"],
        json!({"method": "words", "size": 50, "overlap": 5, "unit": "words"})
    );
    let page = server.get(&format!("{JOBS}/{}/documents?after=698", id_of(&answer))).await.json;
    assert_eq!((&page["documents"][0]["index"], &page["documents"][0]["id"]), (&json!(699), &json!("d699")));
    assert_eq!(server.queued("1").await, 700);
}

#[tokio::test]
async fn an_invalid_line_is_named_and_the_job_is_discarded() {
    let server = Server::with(|settings| settings.text_limit = 100).await;
    let good: String = (0..300).map(|at| format!("{{\"text\": \"text {at}\"}}\n")).collect();
    let cases = [
        ("{\"text\": ", 400, "the line is not JSON"),
        ("[1]", 422, "the line is a list"),
        ("{\"text\": \"  \"}", 400, "text is blank"),
        ("{\"id\": \"x\"}", 422, "text is missing"),
        ("{\"txt\": \"x\"}", 422, "did you mean 'text'"),
        ("{\"text\": \"x\", \"ids\": 1}", 422, "did you mean 'id'"),
        ("{\"text\": 5}", 422, "text is the number 5"),
        ("{\"text\": \"text 7\", \"metadata\": {\"a\": 1}}", 400, "the line has the text of line 8, no id"),
        ("{\"text\": \"text 7\", \"content_type\": \"text/html\"}", 400, "other metadata; give both an id"),
        ("{\"text\": \"x\", \"content_type\": \"\"}", 400, "content_type"),
        (&format!("{{\"text\": \"{}\"}}", "x".repeat(101)), 400, "text has 101 bytes"),
        ("{\"id\": \"\", \"text\": \"x\"}", 400, "id has 0 bytes"),
        (r#"{"text": "a\u0000b"}"#, 400, "text has a NUL"),
        (
            r#"{"text": "x", "metadata": {"a": [1, 18446744073709551617]}}"#,
            400,
            "metadata.a[1] is 18446744073709551617",
        ),
        (r#"{"text": "x", "metadata": {"a": 1e400}}"#, 400, "metadata.a is 1e400"),
    ];
    for (line, status, message) in cases {
        let refused = server.submit_lines("collection=notes", format!("{good}\n{line}\n{good}")).await;
        assert_eq!(refused.status, status, "{line}: {}", refused.text);
        assert!(refused.message().starts_with("line 302: "), "{}", refused.message());
        assert!(refused.message().contains(message), "{}", refused.message());
        assert!(refused.message().contains("nothing of the job is kept"));
    }
    assert_eq!(server.get(JOBS).await.json["jobs"], json!([]));
    assert_eq!(server.queued("1").await, 0);
    let nothing = server.submit_lines("collection=notes", "\n\n").await;
    assert_eq!((nothing.status.as_u16(), nothing.code()), (400, "invalid_value"));
}

#[tokio::test]
async fn a_query_is_checked_like_a_body() {
    let server = Server::start().await;
    let line = "{\"text\": \"x\"}";
    for (query, status, param) in [
        ("model=small", 422, "collection"),
        ("collection=a%2Fb", 400, "collection"),
        ("collection=notes&size=0", 400, "chunking.size"),
        ("collection=notes&method=semantic", 400, "chunking"),
        ("collection=notes&priority=urgent", 422, "priority"),
        ("collection=notes&model=unknown%3Amodel", 404, "model"),
        ("collection=notes&colour=red", 400, "query"),
    ] {
        let refused = server.submit_lines(query, line).await;
        let found = (refused.status.as_u16(), refused.json["error"]["param"].as_str().unwrap_or_default());
        assert_eq!(found, (status, param), "{query}: {}", refused.text);
    }
    let both = server.post(&format!("{JOBS}?collection=notes"), &super::request(1)).await;
    assert_eq!((both.status.as_u16(), both.json["error"]["param"].as_str()), (400, Some("query")));
}

#[tokio::test]
async fn the_number_of_lines_is_limited() {
    let server = Server::with_jobs(|_, _| (), |jobs| jobs.limits.documents = 5).await;
    let lines = |count| (0..count).map(|at| format!("{{\"text\": \"text {at}\"}}\n")).collect::<String>();
    assert_eq!(server.submit_lines("collection=notes", lines(5)).await.status, 202);
    let refused = server.submit_lines("collection=notes", lines(6)).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.message().starts_with("line 6: there are more than 5 documents"),
        "{}",
        refused.message()
    );
}

/// The body is far larger than the limit of a JSON body. The second client disconnects during the upload.
#[tokio::test]
async fn a_large_upload_is_streamed_and_an_aborted_one_is_discarded() {
    let server = Server::with(|settings| settings.body_limit = 64 << 10).await;
    let piece = |at: usize| {
        let text = "x".repeat(10_000);
        Bytes::from(format!("{{\"id\": \"d{at}\", \"text\": \"{text}\"}}\n"))
    };
    let send = |count: usize, broken: bool| {
        let pieces = (0..count).map(move |at| Ok::<_, std::io::Error>(piece(at)));
        let end = broken.then(|| Err(std::io::Error::other("the client disconnects")));
        let request = server.request(Method::POST, &format!("{JOBS}?collection=notes"));
        let body = Body::wrap_stream(stream::iter(pieces.chain(end)));
        request.header("content-type", "application/x-ndjson").body(body)
    };
    let answer = Answer::of(send(1000, false)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json["documents"]["total"]),
        (202, &json!(1000)),
        "{}",
        answer.text
    );
    assert!(send(1000, true).send().await.is_err());
    assert_eq!(server.get(JOBS).await.json["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(server.queued("1").await, 1000);
}

/// Both forms of a submission: a document that is equal to an earlier one, and both without an id, is told what happened.
#[tokio::test]
async fn an_equal_document_without_an_id_is_listed_as_superseded() {
    let server = Server::start().await;
    let texts = ["one", "two", "one", "three", "one"];
    let lines: String = texts.map(|text| format!("{{\"text\": \"{text}\"}}\n")).concat();
    let documents: Vec<_> = texts.iter().map(|text| json!({"text": text})).collect();
    for (answer, first) in [
        (server.submit_lines("collection=notes", lines).await, "line 1"),
        (server.submit(&json!({"collection": "notes", "documents": documents})).await, "documents[0]"),
    ] {
        assert_eq!(answer.status, 202, "{}", answer.text);
        let counts = &answer.json["documents"];
        assert_eq!(
            (&counts["total"], &counts["superseded"], &counts["chunking"]),
            (&json!(5), &json!(2), &json!(3))
        );
        let page = server.get(&format!("{JOBS}/{}/documents?status=superseded", id_of(&answer))).await.json;
        let listed = page["documents"].as_array().unwrap();
        assert_eq!(listed.iter().map(|row| row["index"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 4]);
        for row in listed {
            assert_eq!(row["error"]["code"], "duplicate_document");
            let message = row["error"]["message"].as_str().unwrap();
            assert!(
                message.contains(&format!("the text and the metadata of {first} and no id")),
                "{message}"
            );
        }
        for item in [0, 1, 3] {
            server.work(id_of(&answer), item).await;
        }
        assert_eq!(server.job(id_of(&answer)).await["status"], "completed");
    }
    assert_eq!(server.queued("1").await, 6, "the equal documents have no tasks");
}

#[tokio::test]
async fn a_byte_order_mark_is_not_part_of_a_line() {
    let server = Server::start().await;
    let lines = "{\"id\": \"a\", \"text\": \"one\"}\n{\"id\": \"b\", \"text\": \"two\"}";
    let answer = server.submit_lines("collection=notes", format!("\u{feff}{lines}")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json["documents"]["total"]),
        (202, &json!(2)),
        "{}",
        answer.text
    );
    let concatenated = server.submit_lines("collection=notes", lines.replace('\n', "\n\u{feff}")).await;
    assert_eq!(concatenated.status, 202, "{}", concatenated.text);
    let refused = server.submit_lines("collection=notes", format!("\u{feff}\u{feff}{lines}")).await;
    assert_eq!(refused.status, 400, "one mark: {}", refused.text);
    let empty = server.submit_lines("collection=notes", "\u{feff}\n").await;
    assert!(empty.message().contains("the body is empty"), "{}", empty.text);
    let body = format!("\u{feff}{}", super::request(1));
    let json = server.request(Method::POST, JOBS).header("content-type", "application/json").body(body);
    assert_eq!(Answer::of(json).await.status, 202);
}
