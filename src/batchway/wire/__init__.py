"""OpenAI's shapes as typed structs: what travels between clients and Batchway, and in the files.

Everything here is data for msgspec: decoding checks types, and the OpenAPI document is generated from the same structs.
"""
