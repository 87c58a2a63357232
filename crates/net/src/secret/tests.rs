//! Secrets from good and bad places, and what their errors do not say.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn from_file(content: &[u8]) -> Result<SecretString, SecretError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    SecretSource::File(file.path().to_owned()).load(&no_env)
}

fn from_env(value: &str) -> Result<SecretString, SecretError> {
    SecretSource::Env("TOOL_KEY".to_owned()).load(&|name| (name == "TOOL_KEY").then(|| value.to_owned()))
}

#[test]
fn one_line_end_is_not_part_of_the_secret() {
    for (content, secret) in
        [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n"), (" a ", " a ")]
    {
        assert_eq!(from_file(content.as_bytes()).unwrap().expose_secret(), secret);
        assert_eq!(from_env(content).unwrap().expose_secret(), secret);
    }
}

#[test]
fn what_cannot_be_a_secret_is_refused() {
    for empty in ["", "\n", "\r\n"] {
        assert!(matches!(from_file(empty.as_bytes()), Err(SecretError::Empty { .. })));
        assert!(matches!(from_env(empty), Err(SecretError::Empty { .. })));
    }
    let most = "x".repeat(MAX_SECRET_BYTES);
    for content in [format!("{most}\n"), format!("{most}\r\n"), most.clone()] {
        assert_eq!(from_file(content.as_bytes()).unwrap().expose_secret(), most);
    }
    for content in [format!("{most}x"), format!("{most}x\n"), format!("{most}{most}")] {
        assert!(matches!(from_file(content.as_bytes()), Err(SecretError::TooLarge { .. })));
        assert!(matches!(from_env(&content), Err(SecretError::TooLarge { .. })));
    }
    assert!(matches!(from_file(b"\xff\xfe"), Err(SecretError::NotText { .. })));
    assert!(matches!(SecretSource::Env("NONE".to_owned()).load(&no_env), Err(SecretError::Unset { .. })));
    let missing = SecretSource::File("/nowhere/at/all".into()).load(&no_env).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
    assert!(SecretSource::File("/tmp".into()).load(&no_env).is_err());
}

#[test]
fn a_header_value_holds_one_visible_line_and_does_not_print() {
    let value = header_value("Bearer ", &"abc".into()).unwrap();
    assert_eq!(value, "Bearer abc");
    assert!(!format!("{value:?}").contains("abc"));
    for bad in ["a\nb", "a\r\nx-admin: 1", "a\tb", "a\0", "ä", "\x7f", " a", "a "] {
        let error = header_value("Bearer ", &bad.into()).unwrap_err();
        assert!(matches!(error, SecretError::NotAHeaderValue), "{bad:?}");
    }
}

#[test]
fn errors_do_not_hold_the_content() {
    let content = "hunter2".repeat(10_000);
    for error in [from_file(content.as_bytes()).unwrap_err(), from_env(&content).unwrap_err()] {
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[test]
fn the_configuration_names_exactly_one_place() {
    let read = |text| serde_saphyr::from_str::<SecretSource>(text);
    assert_eq!(read("{file: /secrets/orders}").unwrap(), SecretSource::File("/secrets/orders".into()));
    assert_eq!(read("env: ORDERS_KEY").unwrap(), SecretSource::Env("ORDERS_KEY".to_owned()));
    for bad in
        ["{}", "{value: x}", "{file: /a, env: B}", "{file: /a, mode: 6}", "file", "hunter2", "[file, /a]", "{file: {}}"]
    {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn any_permission_of_others_counts() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (mode, expected) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o601, true), (0o620, true)]
    {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(readable_by_others(file.path()).unwrap(), expected, "{mode:o}");
    }
    assert!(readable_by_others(Path::new("/nowhere/at/all")).is_err());
}

#[test]
fn a_secret_that_others_may_read_is_not_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "hunter2").unwrap();
    let source = SecretSource::File(file.path().to_owned());
    for (mode, taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o600, true)] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let loaded = source.load(&no_env);
        assert_eq!(loaded.is_ok(), taken, "{mode:o}");
        let said = loaded.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(taken || (said.contains("chmod 600") && !said.contains("hunter2")), "{said}");
    }
}

#[test]
fn a_file_that_group_or_others_may_write_is_changeable_by_others() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (mode, expected) in [(0o600, false), (0o644, false), (0o664, true), (0o646, true)] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(changeable_by_others(file.path()).unwrap(), expected, "{mode:o}");
    }
    assert!(changeable_by_others(Path::new("/nowhere/at/all")).is_err());
}

#[test]
fn a_file_of_somebody_else_is_theirs_to_read_and_to_change() {
    // Only root can give a file away; everybody else finds one of root's, which is no stranger's.
    let file = tempfile::NamedTempFile::new().unwrap();
    match std::os::unix::fs::chown(file.path(), Some(12345), None) {
        Ok(()) => {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
            assert!(changeable_by_others(file.path()).unwrap() && readable_by_others(file.path()).unwrap());
        }
        Err(_) => assert!(!changeable_by_others(Path::new("/")).unwrap()),
    }
}
