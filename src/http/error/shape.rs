//! The error format of a path's API.

/// The error format of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `/oauth2/*`: RFC 6749 objects.
    OAuth,
    /// `/v1/verify`: RFC 9457 problems, with the statuses that gateways understand.
    ForwardAuth,
    /// Everything else: RFC 9457 problems.
    Problem,
}

impl ErrorShape {
    /// The error format of `path`.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/oauth2/") {
            Self::OAuth
        } else if path == "/v1/verify" || path.starts_with("/v1/verify/") {
            Self::ForwardAuth
        } else {
            Self::Problem
        }
    }

    /// The error format of `path`, which may begin with `base`.
    pub fn below(base: &str, path: &str) -> Self {
        Self::of(Self::path_below(base, path))
    }

    /// `path` without `base`, if it begins with it.
    pub fn path_below<'a>(base: &str, path: &'a str) -> &'a str {
        path.strip_prefix(base).filter(|inner| inner.starts_with('/')).unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_selects_the_error_format() {
        assert_eq!(ErrorShape::of("/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::of("/v1/verify"), ErrorShape::ForwardAuth);
        assert_eq!(ErrorShape::of("/v1/verify/app/login"), ErrorShape::ForwardAuth);
        for path in ["/v1/verifyx", "/v1/login", "/oauth2", "/", "*", ""] {
            assert_eq!(ErrorShape::of(path), ErrorShape::Problem, "{path}");
        }
    }

    #[test]
    fn paths_below_the_issuers_path_have_the_same_error_format() {
        assert_eq!(ErrorShape::below("/auth", "/auth/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::below("/auth", "/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::below("/auth", "/auth/v1/verify"), ErrorShape::ForwardAuth);
        assert_eq!(ErrorShape::below("/auth", "/authoauth2/token"), ErrorShape::Problem);
        assert_eq!(ErrorShape::below("", "/oauth2/token"), ErrorShape::OAuth);
    }
}
