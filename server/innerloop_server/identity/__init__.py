"""Who callers are, by what they show: certificates, API keys, tokens.

`certificates` names the owners of client certificates, `api_keys` those of the keys in a file, and `tokens` those of
JSON Web Tokens, whose signatures `token_keys` checks with keys from a file or a URL. `authenticator` asks whichever of
the last two a credential is for. Files are read again when they change (`followed_file`). Owners have a prefix for each
kind of credential, so that those of different kinds are never the same.
"""
