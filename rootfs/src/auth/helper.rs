//! Programs that keep credentials: `docker-credential-NAME get`, the registry on its standard input, JSON on its output.

use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Auth, CredentialsError};
use crate::limits::{HELPER_ANSWER_BYTES_MAX, HELPER_TIMEOUT, MESSAGE_LETTERS_MAX};

/// How helpers say that they have nothing for a registry.
const NOT_FOUND: &str = "credentials not found";
/// The name of a user who has an identity token in place of a password.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What `program` has for the registry that docker calls `server`.
pub(super) async fn ask(program: &str, server: &str) -> Result<Option<Auth>, CredentialsError> {
    let failed = |why: String| CredentialsError::Helper { program: program.to_owned(), why };
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(format!("cannot start it: {error}")))?;
    let talk = async {
        if let Some(mut input) = child.stdin.take() {
            // One that answers without reading is no worse for it.
            drop(input.write_all(server.as_bytes()).await);
        }
        let mut answer = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(HELPER_ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>((answer, child.wait().await?))
    };
    let (answer, status) = match timeout(HELPER_TIMEOUT, talk).await {
        Ok(Ok(talked)) => talked,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer within {} s", HELPER_TIMEOUT.as_secs()))),
    };
    if answer.len() as u64 > HELPER_ANSWER_BYTES_MAX {
        return Err(failed(format!("its answer is larger than {HELPER_ANSWER_BYTES_MAX} bytes")));
    }
    if !status.success() {
        let words = String::from_utf8_lossy(&answer);
        let words: String =
            words.trim().chars().filter(|letter| !letter.is_control()).take(MESSAGE_LETTERS_MAX).collect();
        return if words.contains(NOT_FOUND) { Ok(None) } else { Err(failed(format!("{status}: {words}"))) };
    }
    // The answer is a secret, of which serde's own words could quote a part.
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| failed("its answer has no Username and Secret".to_owned()))?;
    Ok(match (answer.username, answer.secret) {
        (_, secret) if secret.is_empty() => None,
        (username, token) if username == TOKEN_USER => Some(Auth::Identity { username, token }),
        (username, password) => Some(Auth::Password { username, password }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by another process: a program that this one has open for writing cannot be started.
    fn program(top: &tempfile::TempDir, script: &str) -> String {
        let path = top.path().join("helper").to_str().unwrap().to_owned();
        let write = format!("printf '%s' \"$1\" > {path} && chmod 755 {path}");
        let written = std::process::Command::new("sh").args(["-c", &write, "sh", script]).status().unwrap();
        assert!(written.success());
        path
    }

    async fn check(script: &str) -> Result<Option<Auth>, CredentialsError> {
        let top = tempfile::tempdir().unwrap();
        ask(&program(&top, &format!("#!/bin/sh\n{script}\n")), "r.io:5000").await
    }

    #[tokio::test]
    async fn helpers_are_asked_by_their_protocol() {
        let echo = r#"test "$1" = get && printf '{"ServerURL":"x","Username":"u","Secret":"%s"}' "$(cat)""#;
        let password = Auth::Password { username: "u".into(), password: "r.io:5000".into() };
        assert_eq!(check(echo).await.unwrap(), Some(password));
        let token = Auth::Identity { username: TOKEN_USER.into(), token: "t".into() };
        assert_eq!(check(r#"echo '{"Username":"<token>","Secret":"t"}'"#).await.unwrap(), Some(token));
        assert_eq!(check(r#"echo '{"Username":"","Secret":""}'"#).await.unwrap(), None);
        assert_eq!(check("echo 'credentials not found in native keychain'; exit 1").await.unwrap(), None);
    }

    #[tokio::test]
    async fn helpers_that_fail_are_named_and_not_believed() {
        for (script, told) in [
            ("echo locked; exit 3", "exit status: 3: locked"),
            ("echo 'not json secret'", "no Username"),
            ("echo '{\"Username\":\"u\",\"Secret\":7}'", "no Username"),
            ("yes secret", "larger than"),
        ] {
            let error = check(script).await.unwrap_err().to_string();
            assert!(error.contains("/helper: ") && error.contains(told) && !error.contains("secret"), "{error}");
        }
        let error = ask("docker-credential-that-nobody-has", "r.io").await.unwrap_err().to_string();
        assert!(error.starts_with("docker-credential-that-nobody-has: cannot start it"), "{error}");
    }
}
