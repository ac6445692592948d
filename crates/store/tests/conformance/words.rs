//! Search by words: scripts, technical forms, phrases, ranking, and a labelled set in six languages.

use std::{fmt::Write as _, fs, path::Path};

use embeddery_store::{DeleteTarget, SearchMode};
use serde_json::{Value, json};

use crate::support::{COLLECTION, Tenant, document, ids, vector_of};

/// Stores one document for each text, with its number as the id.
async fn create_with_texts<'t>(tenant: &Tenant, texts: impl Iterator<Item = &'t str>) {
    let documents = texts.enumerate().map(|(i, text)| document(&i.to_string(), &[text], json!({})));
    tenant.create_with(documents.collect()).await;
}

/// The ids of the documents with words of a query, best first.
async fn find(tenant: &Tenant, query: &str) -> Vec<String> {
    let hits = tenant.search(SearchMode::Text(query.into()), 100, None).await;
    hits.into_iter().map(|hit| hit.document).collect()
}

/// Each text is found by each of its queries, and by no query of another text.
async fn each_is_found_by_its_own_queries(tenant: &Tenant, table: &[(&str, &str, &[&str])]) {
    create_with_texts(tenant, table.iter().map(|(_, text, _)| *text)).await;
    let mut failures = String::new();
    for (i, (name, _, queries)) in table.iter().enumerate() {
        for query in *queries {
            let found = find(tenant, query).await;
            if found != [i.to_string()] {
                writeln!(failures, "{name}: {query} finds {found:?} instead of {i}").unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

pub async fn words_of_all_scripts_are_found(tenant: &Tenant) {
    let table: &[(&str, &str, &[&str])] = &[
        ("Latin", "Crème brûlée in the café", &["creme", "BRULEE", "cafe", "cafe\u{301}", "crème brûlée"]),
        (
            "German",
            "Die Straßenbahn fährt über Brücken",
            &["strassenbahn", "STRASSENBAHN", "fahrt", "Bru\u{308}cken"],
        ),
        ("Turkish", "Isparta'da gülü çok güzel IŞIK", &["ISPARTA", "ısparta", "ışık", "gulu"]),
        ("Vietnamese", "Tiếng Việt và đường phố", &["tieng viet", "Tiếng", "duong", "đường"]),
        ("Polish", "Łódź leży w środku kraju", &["lodz", "ŁÓDŹ", "srodku"]),
        ("Greek", "Η μεγάλη οδός του Οδυσσέα", &["ΟΔΟΣ", "οδος", "Οδυσσεα", "ΜΕΓΆΛΗ"]),
        (
            "Cyrillic",
            "Ёлка стоит у реки, чайник в доме",
            &["елка", "ЁЛКА", "Е\u{308}лка", "чайник", "чаи\u{306}ник"],
        ),
        ("Armenian", "Երևանը Հայաստանի մայրաքաղաքն է", &["ԵՐԵՎԱՆԸ", "հայաստանի"]),
        ("Georgian", "თბილისი საქართველოს დედაქალაქია", &["თბილისი", "ᲗᲑᲘᲚᲘᲡᲘ"]),
        ("Hebrew", "שָׁלוֹם לכל העולם", &["שלום", "שָׁלוֹם", "העולם"]),
        ("Arabic", "مُحَمَّد يقرأ الكتـــاب أحمر", &["محمد", "الكتاب", "احمر"]),
        ("Persian", "می\u{200c}خواهم کتابخانه", &["میخواهم", "كتابخانه"]),
        ("Hindi", "हिन्दी में ख़बरें पढ़ें २०२४", &["हिन्दी", "पढ\u{93c}ें", "2024"]),
        ("Bengali", "বাংলা ভাষার ইতিহাস", &["বাংলা", "ইতিহাস", "বাংলা ভাষার"]),
        ("Tamil", "தமிழ் மொழியின் வரலாறு", &["தமிழ்", "வரலாறு"]),
        ("Thai", "แมวดำกินปลาในครัว", &["แมว", "ปลา", "แมวดำ", "ครัว"]),
        ("Khmer", "ភាសាខ្មែរមានអក្សរច្រើន", &["ភាសា", "អក្សរ", "ខ្មែរ"]),
        ("Burmese", "မြန်မာစာသင်ကြားသည်", &["မြန်မာ", "သင်ကြား"]),
        ("Lao", "ພາສາລາວງາມຫຼາຍ", &["ພາສາ", "ລາວ"]),
        ("Amharic", "አዲስ አበባ የኢትዮጵያ ዋና ከተማ", &["አበባ", "ከተማ", "አዲስ አበባ"]),
        (
            "Chinese",
            "使用Redis缓存数据库的方法",
            &["缓存", "数据库", "redis", "使用Redis缓存", "库", "怎么使用数据库"],
        ),
        ("Japanese", "東京タワーの高さは三百メートル", &["東京", "タワー", "ﾀﾜｰ", "東京タワー", "メートル"]),
        ("Korean", "데이터베이스를 설정하는 방법", &["데이터베이스", "데이터베이스의", "설정", "방법"]),
        ("Full-width", "Ｋｕｂｅｒｎｅｔｅｓ　１３５", &["kubernetes", "135", "Ｋｕｂｅｒｎｅｔｅｓ"]),
    ];
    each_is_found_by_its_own_queries(tenant, table).await;
}

pub async fn technical_forms_are_found(tenant: &Tenant) {
    let table: &[(&str, &str, &[&str])] = &[
        (
            "e-mail",
            "write to jane.doe@mail.example.org today",
            &["jane.doe@mail.example.org", "JANE", "doe@mail"],
        ),
        (
            "host",
            "served by db-7.eu-west.cluster.local",
            &["db-7.eu-west.cluster.local", "cluster.local", "west"],
        ),
        (
            "URL",
            "see https://docs.site.test/guide/start?lang=fr",
            &["https://docs.site.test/guide/start", "guide", "lang=fr"],
        ),
        ("version", "released v4.18.2-rc3 yesterday", &["v4.18.2-rc3", "4.18.2", "rc3"]),
        ("IPv4", "the node 10.20.30.41 is down", &["10.20.30.41", "20.30"]),
        ("IPv4 beside it", "the node 10.20.99.41 is up", &["10.20.99.41"]),
        ("IPv6", "bind to 2001:db8::ff42:8329", &["2001:db8::ff42:8329", "ff42"]),
        (
            "Windows path",
            r"open C:\Windows\Temp\setup.log",
            &[r"C:\Windows\Temp\setup.log", "setup.log", "windows"],
        ),
        (
            "Unix path",
            "edit /etc/nginx/sites/default.conf",
            &["/etc/nginx/sites/default.conf", "nginx", "default.conf"],
        ),
        ("number", "it costs 1,234,567.89 euros", &["1,234,567.89", "1234567", "1.234.567"]),
        ("part number", "order AB-1234/5 again", &["AB-1234/5", "ab1234", "1234/5"]),
        ("snake_case", "call parse_http_header first", &["parse_http_header", "parseHttpHeader", "header"]),
        (
            "camelCase",
            "the method getUserName returns",
            &["getUserName", "getusername", "get_user_name", "UserName"],
        ),
        ("C++", "written in C++ only", &["C++", "c++"]),
        ("C#", "compiled from C# sources", &["C#"]),
        (".NET", "hosted on .NET servers", &[".NET"]),
        ("hashtag", "tagged #SummerSale2031 online", &["#SummerSale2031", "summersale", "#summersale2031"]),
        ("date", "due 2031-07-04 at noon", &["2031-07-04", "07-04"]),
        ("time", "starts 23:59:58 sharp", &["23:59:58", "23:59"]),
        (
            "hash",
            "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
            &["9fceb02d0ae598e95dc970b74767f19372d61af8", "9fceb02d*"],
        ),
        (
            "UUID",
            "id 550e8400-e29b-41d4-a716-446655440000",
            &["550e8400-e29b-41d4-a716-446655440000", "550E8400"],
        ),
        ("unit", "weighs 75kg net", &["75kg", "75 kg", "kg"]),
        ("compound", "a wi-fi antenna", &["wi-fi", "wifi"]),
        ("acronym", "the N.A.S.A. launch", &["N.A.S.A.", "nasa"]),
        ("superscript", "CO₂ over 12m² of floor", &["CO2", "12m²", "12m^2"]),
    ];
    each_is_found_by_its_own_queries(tenant, table).await;
    assert_eq!(find(tenant, "2031").await.len(), 2, "the hashtag and the date");
    assert_eq!(find(tenant, "C").await.len(), 3, "C++, C# and the drive");
}

pub async fn phrases_and_starts_of_words_are_found(tenant: &Tenant) {
    create_with_texts(
        tenant,
        [
            "the lazy dog and the quick fox",
            "a quick lazy fox",
            "foxes are quicker",
            "数据仓库和仓库数据",
            "数据库",
        ]
        .into_iter(),
    )
    .await;
    let sorted = async |query: &str| {
        let mut found = find(tenant, query).await;
        found.sort();
        found
    };
    for (query, expected) in [
        ("\"quick fox\"", vec!["0"]),
        ("“quick lazy”", vec!["1"]),
        ("\"lazy dog\" foxes", vec!["0", "2"]),
        ("\"fox quick\"", vec![]),
        ("fox*", vec!["0", "1", "2"]),
        ("quick*", vec!["0", "1", "2"]),
        ("fox", vec!["0", "1"]),
        ("\"仓库数据\"", vec!["3"]),
        ("库", vec!["3", "4"]),
        ("\"库\"", vec!["3", "4"]),
        // Without their partner or their word, operators are plain text.
        ("\"quick fox", vec!["0", "1"]),
        ("* dog", vec!["0"]),
        ("\"\" dog", vec!["0"]),
    ] {
        assert_eq!(sorted(query).await, expected, "{query}");
    }
    for odd in [
        "\"*\"",
        "\"\"\"\"",
        "'fox':*",
        "fox & !dog",
        "fox <-> dog",
        "\\' fox",
        "a\0b",
        "NOT fox",
        "{fox}: ^fox",
    ] {
        find(tenant, odd).await;
    }
}

pub async fn words_rank_by_rarity_frequency_and_length(tenant: &Tenant) {
    let filler = (0..30).map(|i| format!("common words of text {i}"));
    let texts = [
        "common zebra".to_owned(),
        "common zebra zebra".to_owned(),
        "common zebra and a long text that says many other things about other animals in other places"
            .to_owned(),
        "common lion".to_owned(),
        "a state-of-the-art camera".to_owned(),
        "the art of the state".to_owned(),
    ];
    let texts: Vec<String> = texts.into_iter().chain(filler).collect();
    create_with_texts(tenant, texts.iter().map(String::as_str)).await;
    assert_eq!(find(tenant, "zebra").await, ["1", "0", "2"]);
    assert_eq!(find(tenant, "common lion").await[0], "3");
    assert_eq!(find(tenant, "common zebra").await[..3], ["1", "0", "2"]);
    assert_eq!(find(tenant, "common").await.len(), 34);
    assert_eq!(find(tenant, "state-of-the-art").await[..2], ["4", "5"]);
    let top = tenant.search(SearchMode::Text("common zebra lion".into()), 4, None).await;
    assert_eq!(top.len(), 4);
    assert_eq!(top.iter().map(|hit| hit.text_rank.unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    // More results than chunks with a rare word.
    assert_eq!(tenant.search(SearchMode::Text("common zebra".into()), 20, None).await.len(), 20);
}

/// The words of one collection have no influence on another, and a deletion removes them.
pub async fn words_belong_to_their_collection_and_go_with_their_chunk(tenant: &Tenant) {
    for name in [COLLECTION, "other"] {
        tenant.create(name).await;
    }
    let into_other = tenant.collection_ref("other");
    let space = || Some(embeddery_core::SpaceId::new("space-a"));
    tenant.upsert(vec![document("a", &["zebra one", "zebra two"], json!({"kind": "x"}))]).await.unwrap();
    let others = (0..20).map(|i| document(&format!("o{i}"), &["zebra elsewhere"], json!({}))).collect();
    tenant.store.upsert(into_other, space(), others).await.unwrap();
    assert_eq!(find(tenant, "zebra").await, ["a", "a"]);
    assert_eq!(find(tenant, "elsewhere").await, Vec::<String>::new());

    tenant.upsert(vec![document("a", &["zebra two", "lion"], json!({"kind": "x"}))]).await.unwrap();
    assert_eq!(find(tenant, "zebra one").await.len(), 1);
    assert_eq!(find(tenant, "lion").await, ["a"]);
    let filtered = async |kind: &str| {
        tenant.search(SearchMode::Text("zebra".into()), 5, Some(json!({"kind": kind}))).await.len()
    };
    assert_eq!((filtered("x").await, filtered("y").await), (1, 0));
    tenant.store.delete(tenant.collection(), DeleteTarget::Ids(&["a".to_owned()])).await.unwrap();
    assert_eq!(find(tenant, "zebra lion").await, Vec::<String>::new());
    tenant.store.drop_collection(tenant.collection()).await.unwrap();
    tenant.create(COLLECTION).await;
    assert_eq!(find(tenant, "zebra").await, Vec::<String>::new());
    tenant.upsert(vec![document("b", &["zebra again"], json!({}))]).await.unwrap();
    assert_eq!(find(tenant, "zebra").await, ["b"]);
}

pub async fn hits_say_how_they_were_found(tenant: &Tenant) {
    create_with_texts(tenant, ["zebra", "zebra and lion", "lion", "unrelated"].into_iter()).await;
    let by_words = tenant.search(SearchMode::Text("zebra".into()), 5, None).await;
    assert_eq!(ids(&by_words), ["0", "1"]);
    for (hit, rank) in by_words.iter().zip(1..) {
        assert_eq!((hit.cosine, hit.text_rank, hit.text_score), (None, Some(rank), Some(hit.score)));
    }
    let by_vector = tenant.search(SearchMode::Vector(vector_of("zebra")), 5, None).await;
    assert_eq!(by_vector.len(), 4);
    for hit in &by_vector {
        assert_eq!((hit.cosine, hit.text_rank, hit.text_score), (Some(hit.score), None, None));
    }
    let both = tenant.search(SearchMode::Hybrid(vector_of("zebra"), "zebra".into()), 5, None).await;
    assert_eq!((both.len(), both[0].document.as_str()), (4, "0"));
    for hit in &both {
        let alone = by_vector.iter().find(|other| other.id == hit.id).unwrap();
        assert!((hit.cosine.unwrap() - alone.score).abs() < 1e-5);
        let words = by_words.iter().find(|other| other.id == hit.id);
        assert_eq!(hit.text_rank, words.map(|other| other.text_rank.unwrap()));
        assert_eq!(hit.text_score, words.map(|other| other.score));
        assert!(hit.score > 0.0 && hit.score <= 2.0 / 61.0 + 1e-6);
    }
    // A chunk that only its words found has its cosine, too.
    tenant.store.drop_collection(tenant.collection()).await.unwrap();
    let far: Vec<_> = (0..60).map(|i| document(&i.to_string(), &["zebra"], json!({}))).collect();
    tenant.create_with(far).await;
    let mut word = document("word", &["lion"], json!({}));
    word.chunks[0].vector = Some(vector_of("zebra").iter().map(|x| -x).collect());
    tenant.upsert(vec![word]).await.unwrap();
    let both = tenant.search(SearchMode::Hybrid(vector_of("zebra"), "lion".into()), 5, None).await;
    let word = both.iter().find(|hit| hit.document == "word").unwrap();
    assert!((word.cosine.unwrap() + 1.0).abs() < 2e-3 && word.text_rank == Some(1), "{word:?}");
}

/// Queries with the passages that answer them, in one language.
struct LabelledSet {
    passages: Vec<String>,
    queries: Vec<(String, Vec<String>)>,
}

impl LabelledSet {
    fn load(language: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/retrieval/{language}.json"));
        let set: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let texts = set["passages"].as_array().unwrap();
        let queries = set["queries"].as_array().unwrap().iter().map(|query| {
            // Passages are counted from 1.
            let relevant =
                query["relevant"].as_array().unwrap().iter().map(|id| (id.as_u64().unwrap() - 1).to_string());
            (query["text"].as_str().unwrap().to_owned(), relevant.collect())
        });
        Self {
            passages: texts.iter().map(|text| text.as_str().unwrap().to_owned()).collect(),
            queries: queries.collect(),
        }
    }
}

/// Share of the relevant passages among the first ten, on average over the queries. The floors are just below what this
/// version reaches. Words that a language inflects are only found in the same form.
pub async fn labelled_passages_are_found_in_six_languages(tenant: &Tenant) {
    let mut recalls = Vec::new();
    for (language, floor) in
        [("en", 0.95), ("de", 0.95), ("zh", 0.95), ("ja", 0.95), ("ru", 0.95), ("hi", 0.95)]
    {
        let set = LabelledSet::load(language);
        create_with_texts(tenant, set.passages.iter().map(String::as_str)).await;
        let mut sum = 0.0;
        for (query, relevant) in &set.queries {
            let hits = tenant.search(SearchMode::Text(query.clone()), 10, None).await;
            let found = relevant.iter().filter(|id| ids(&hits).contains(&id.as_str())).count();
            sum += found as f64 / relevant.len() as f64;
        }
        let recall = sum / set.queries.len() as f64;
        recalls.push((language, recall, recall >= floor));
        tenant.store.drop_collection(tenant.collection()).await.unwrap();
    }
    assert!(recalls.iter().all(|(_, _, is_enough)| *is_enough), "{recalls:?}");
}
